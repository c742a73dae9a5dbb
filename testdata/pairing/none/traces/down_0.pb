ß&

	127.0.0.1ı–
	127.0.0.1üìg
Ùæ¥Ø¸—1X
V
TGET /ok/0 HTTP/1.1
Host: 127.0.0.1:52093
Accept-Encoding: identity
x-truth: 0

Ë
Ùæ¥ØÈ’;»
¸
µHTTP/1.1 200 OK
content-length: 55
x-envoy-upstream-service-time: 19
date: Fri, 27 Nov 2026 12:11:05 GMT
server: envoy

answer 200 answer 200 answer 200 answer 200 answer 200 