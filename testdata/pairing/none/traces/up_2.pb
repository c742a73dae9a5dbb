ö&

	127.0.0.1¨∂
	127.0.0.1£Ìü
Õª¶ÿË∂ÅØé
ã
àGET /ok/0 HTTP/1.1
host: 127.0.0.1:33927
accept-encoding: identity
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

À
Õª¶ÿ»Ë⁄≤∫
∑
¥HTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 0
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 