¥	&

	127.0.0.1∞∂
	127.0.0.1£Ì°
Õª¶ÿ¯ºñ∞ê
ç
äGET /fail/4 HTTP/1.1
host: 127.0.0.1:33927
accept-encoding: identity
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

‹
Õª¶ÿ®ÀÓπÀ
»
≈HTTP/1.1 503 Service Unavailable
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 2
content-length: 55

answer 503 answer 503 answer 503 answer 503 answer 503 Ñ
Õª¶ÿ†Î·Ìt
r
pGET /hedge/21 HTTP/1.1
host: 127.0.0.1:33927
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 9909

