ó&

	127.0.0.1ñ•
	127.0.0.1ø÷±
Õª¶ÿ∞Öõ≈†
ù
öGET /ok/rewritten/6 HTTP/1.1
host: 127.0.0.1:33927
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000
x-envoy-original-path: /rewrite/6

Ã
Õª¶ÿ†Œº≈ª
∏
µHTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 19
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 Ö
Õª¶ÿÿ·œÕu
s
qGET /failing/5 HTTP/1.1
host: 127.0.0.1:33927
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 9976

ﬂ
Õª¶ÿÿêÁŒŒ
À
»HTTP/1.1 500 Internal Server Error
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 27
content-length: 55

answer 500 answer 500 answer 500 answer 500 answer 500 