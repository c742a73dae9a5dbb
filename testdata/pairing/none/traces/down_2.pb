ã&

	127.0.0.1ý–
	127.0.0.1Žíi
Ùæ¥Ø˜‘²2Z
X
VGET /slow/1 HTTP/1.1
Host: 127.0.0.1:52093
Accept-Encoding: identity
x-truth: 1

Ë
Ùæ¥ØÀÆ¢U»
¸
µHTTP/1.1 200 OK
server: envoy
date: Fri, 27 Nov 2026 12:11:05 GMT
content-length: 55
x-envoy-upstream-service-time: 72

answer 200 answer 200 answer 200 answer 200 answer 200 