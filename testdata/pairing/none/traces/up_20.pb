ì&

	127.0.0.1º∂
	127.0.0.1£ÌÜ
Õª¶ÿà≈ò≈v
t
rGET /failing/5 HTTP/1.1
host: 127.0.0.1:33927
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

›
Õª¶ÿ–‰÷∆Ã
…
∆HTTP/1.1 503 Service Unavailable
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 18
content-length: 55

answer 503 answer 503 answer 503 answer 503 answer 503 