Ï&

	127.0.0.1áâ
	127.0.0.1ê h
Õª¶ÿ∞†◊ÆX
V
TGET /ok/0 HTTP/1.1
Host: 127.0.0.1:33927
Accept-Encoding: identity
x-truth: 0

À
Õª¶ÿ‡∏ë≥∫
∑
¥HTTP/1.1 200 OK
server: envoy
date: Fri, 27 Nov 2026 15:12:13 GMT
content-length: 55
x-envoy-upstream-service-time: 7

answer 200 answer 200 answer 200 answer 200 answer 200 n
Õª¶ÿà¶Ç¥^
\
ZGET /direct/13 HTTP/1.1
Host: 127.0.0.1:33927
Accept-Encoding: identity
x-truth: 13

ô
Õª¶ÿË’©∫à
Ö
ÇHTTP/1.1 200 OK
content-length: 13
content-type: text/plain
date: Fri, 27 Nov 2026 15:12:13 GMT
server: envoy

said by Envoy