Ç&

	127.0.0.1‡‰
	127.0.0.1¤ÊË
Í»¦ØàŒ‚¯º
·
´POST /echo/2 HTTP/1.1
Host: 127.0.0.1:33927
Accept-Encoding: identity
Content-Length: 200
x-truth: 2

body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 Ì
Í»¦Øè‚˜»»
¸
µHTTP/1.1 200 OK
server: envoy
date: Fri, 27 Nov 2026 15:12:13 GMT
content-length: 55
x-envoy-upstream-service-time: 21

answer 200 answer 200 answer 200 answer 200 answer 200 