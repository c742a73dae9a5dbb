Ú&

	127.0.0.1ý–
	127.0.0.1ší
Ùæ¥Øðâ©2p
n
lPOST /echo/2 HTTP/1.1
Host: 127.0.0.1:52093
Accept-Encoding: identity
Content-Length: 200
x-truth: 2

Þ
Ùæ¥Ø¸ÐÑ2Î
Ë
Èbody of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 body of 2 Ë
Ùæ¥Ø Ç’;»
¸
µHTTP/1.1 200 OK
content-length: 55
x-envoy-upstream-service-time: 17
date: Fri, 27 Nov 2026 12:11:05 GMT
server: envoy

answer 200 answer 200 answer 200 answer 200 answer 200 