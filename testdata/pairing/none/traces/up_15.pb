²&

	127.0.0.1¼¥
	127.0.0.1ÑÌ…
Ùæ¥ØÈý¾<v
t
rGET /giveup/12 HTTP/1.1
host: 127.0.0.1:52093
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 10000

