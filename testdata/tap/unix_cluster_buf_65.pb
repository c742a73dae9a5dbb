NA
@abstract/upstream

ÆûÍ œ	

ping


ÆûÍÀ¸	

pong
