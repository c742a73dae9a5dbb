æ&

	127.0.0.1¶ù
	127.0.0.1˘•√
ŸÊ•ÿËÙÚ=≥
∞
≠GET /mirror/18 HTTP/1.1
host: 127.0.0.1-shadow:52093
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000
x-envoy-internal: true
x-forwarded-for: 192.0.2.2

À
ŸÊ•ÿê√ó?ª
∏
µHTTP/1.1 200 OK
Server: BaseHTTP/0.6 Python/3.11.7
Date: Fri, 27 Nov 2026 12:11:05 GMT
x-served: 14
content-length: 55

answer 200 answer 200 answer 200 answer 200 answer 200 