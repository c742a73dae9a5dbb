Ô&

	127.0.0.1º¶
	127.0.0.1£í„
Í»¦ØÈùà¼t
r
pGET /half/22 HTTP/1.1
host: 127.0.0.1:33927
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 15000

Ë
Í»¦ØðÛ¨¾º
·
´HTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 5
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 ƒ
Í»¦ØàèÈÅs
q
oGET /half/7 HTTP/1.1
host: 127.0.0.1:33927
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 14994

Ì
Í»¦Ø¨ªÒÆ»
¸
µHTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 15:12:13 GMT
x-served: 20
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 