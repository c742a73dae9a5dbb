ö&

	127.0.0.1éù
	127.0.0.1˘•†
ŸÊ•ÿ»„ª2ê
ç
äGET /slow/1 HTTP/1.1
host: 127.0.0.1:52093
accept-encoding: identity
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

 
ŸÊ•ÿ–ŸåU∫
∑
¥HTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 12:11:05 GMT
x-served: 1
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 