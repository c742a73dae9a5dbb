ı&

	127.0.0.1´¥
	127.0.0.1ÑÌ‚
Ùæ¥Øé½<s
q
oGET /half/7 HTTP/1.1
host: 127.0.0.1:52093
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 15000

Ë
Ùæ¥ØÀóØ>»
¸
µHTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 12:11:05 GMT
x-served: 10
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 