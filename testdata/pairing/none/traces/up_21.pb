¯&

	127.0.0.1Ä¥
	127.0.0.1ÑÌ‚
Ùæ¥Ø™œBs
q
oGET /reset/8 HTTP/1.1
host: 127.0.0.1:52093
x-forwarded-proto: http
x-envoy-expected-rq-timeout-ms: 9988

