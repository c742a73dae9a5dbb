°&

	127.0.0.1¶¥
	127.0.0.1ÑÌƒ
Ùæ¥ØÐ§¾<t
r
pGET /reset/8 HTTP/1.1
host: 127.0.0.1:52093
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

