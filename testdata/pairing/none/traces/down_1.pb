ã&

	127.0.0.1ý–
	127.0.0.1€íj
Ùæ¥ØÀÃ’1[
Y
WGET /flaky/3 HTTP/1.1
Host: 127.0.0.1:52093
Accept-Encoding: identity
x-truth: 3

Ê
Ùæ¥Ø˜™Ð5º
·
´HTTP/1.1 200 OK
server: envoy
date: Fri, 27 Nov 2026 12:11:05 GMT
content-length: 55
x-envoy-upstream-service-time: 7

answer 200 answer 200 answer 200 answer 200 answer 200 