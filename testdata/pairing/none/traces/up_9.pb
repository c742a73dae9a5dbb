ö	&

	127.0.0.1öù
	127.0.0.1˘•†
ŸÊ•ÿÄ¡Ú4ê
ç
äGET /flaky/3 HTTP/1.1
host: 127.0.0.1:52093
accept-encoding: identity
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 9994

 
ŸÊ•ÿ†ö≥5∫
∑
¥HTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 12:11:05 GMT
x-served: 2
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 