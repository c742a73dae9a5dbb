¯&

	127.0.0.1¨
	127.0.0.1ù¥‚
Ùæ¥Øøõß>s
q
oGET /reset/8 HTTP/1.1
host: 127.0.0.1:52093
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 9996

