ö&

	127.0.0.1ý–
	127.0.0.1’íi
Ùæ¥Øà–Õ1Z
X
VGET /fail/4 HTTP/1.1
Host: 127.0.0.1:52093
Accept-Encoding: identity
x-truth: 4

Þ
Ùæ¥Øð¯“?Î
Ë
ÈHTTP/1.1 500 Internal Server Error
content-length: 55
x-envoy-upstream-service-time: 28
date: Fri, 27 Nov 2026 12:11:05 GMT
server: envoy

answer 500 answer 500 answer 500 answer 500 answer 500 