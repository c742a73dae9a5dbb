ş&

	127.0.0.1
	127.0.0.1ù¥…
Ùæ¥ØÀÖ¾<v
t
rGET /halfway/9 HTTP/1.1
host: 127.0.0.1:52093
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

É
Ùæ¥ØØÈ>¹
¶
³HTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 12:11:05 GMT
x-served: 7
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200