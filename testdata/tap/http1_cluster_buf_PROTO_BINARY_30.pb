Ø#

10.2.0.1¸Ž
	10.2.0.80PZ

ÁûžÍ ÑL
J
HGET /health HTTP/1.1
Host: upstream.example
x-request-id: 5f6d3c1a

S
ÁûžÍà¿‡D
B
@HTTP/1.1 204 No Content
Date: Wed, 04 Mar 2026 05:06:09 GMT

