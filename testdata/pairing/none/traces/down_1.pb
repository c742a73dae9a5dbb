Â&

	127.0.0.1áâ
	127.0.0.1ñ j
Õª¶ÿ∏´äØZ
X
VGET /slow/1 HTTP/1.1
Host: 127.0.0.1:33927
Accept-Encoding: identity
x-truth: 1

Ã
Õª¶ÿ∏ÖÅ“ª
∏
µHTTP/1.1 200 OK
server: envoy
date: Fri, 27 Nov 2026 15:12:13 GMT
content-length: 55
x-envoy-upstream-service-time: 72

answer 200 answer 200 answer 200 answer 200 answer 200 