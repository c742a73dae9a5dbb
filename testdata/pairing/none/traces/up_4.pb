¬&

	127.0.0.1¤¥
	127.0.0.1ÑÌ¡
Ùæ¥Ø¸óò1‘
Ž
‹GET /flaky/3 HTTP/1.1
host: 127.0.0.1:52093
accept-encoding: identity
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

Û
Ùæ¥Ø°—Ñ4Ë
È
ÅHTTP/1.1 503 Service Unavailable
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 12:11:05 GMT
x-served: 0
content-length: 55

answer 503 answer 503 answer 503 answer 503 answer 503 