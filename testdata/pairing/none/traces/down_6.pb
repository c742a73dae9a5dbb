æ&

	127.0.0.1‡‰
	127.0.0.1®Êk
Í»¦ØàËê¯[
Y
WGET /flaky/3 HTTP/1.1
Host: 127.0.0.1:33927
Accept-Encoding: identity
x-truth: 3

Ì
Í»¦Ø¨¥žÊ»
¸
µHTTP/1.1 200 OK
content-length: 55
x-envoy-upstream-service-time: 54
date: Fri, 27 Nov 2026 15:12:13 GMT
server: envoy

answer 200 answer 200 answer 200 answer 200 answer 200 