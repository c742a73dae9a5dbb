ú&

	127.0.0.1å•
	127.0.0.1ø÷°
Õª¶ÿàñ¿Øê
ç
äGET /slow/1 HTTP/1.1
host: 127.0.0.1:33927
accept-encoding: identity
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

À
Õª¶ÿËñˆ—∫
∑
¥HTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 1
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 