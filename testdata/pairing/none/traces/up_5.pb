Ñ&

	127.0.0.1”¥
	127.0.0.1¿Öÿ
Í»¦Ø°Þé¯î
ë
èPOST /echo/2 HTTP/1.1
host: 127.0.0.1:33927
accept-encoding: identity
content-length: 200
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 Ë
Í»¦Ø¨úˆºº
·
´HTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 3
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 …
Í»¦ØèãªÆu
s
qGET /hedge/21 HTTP/1.1
host: 127.0.0.1:33927
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

Ì
Í»¦Ø°˜þ‘»
¸
µHTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 25
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 