ö&

	127.0.0.1‡‰
	127.0.0.1´Êj
Í»¦Ø˜•„°Z
X
VGET /fail/4 HTTP/1.1
Host: 127.0.0.1:33927
Accept-Encoding: identity
x-truth: 4

İ
Í»¦ØÏ–»Ì
É
ÆHTTP/1.1 503 Service Unavailable
server: envoy
date: Fri, 27 Nov 2026 15:12:13 GMT
content-length: 55
x-envoy-upstream-service-time: 20

answer 503 answer 503 answer 503 answer 503 answer 503 