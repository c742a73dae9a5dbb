”
P$

10.1.0.1?
	10.1.0.99à¾;
	ÈûÍN.
,
*GET /short HTTP/1.1
Host: tap.example

•

ÈûÍ œ†
ƒ
€HTTP/1.1 200 OK
Content-Length: 600

line 00000001
line 00000002
line 00000003
line 00000004
line 00000005
line 00000006
line 00000007
line 00000008
line 00000009
line 00000010
line 00000011
line 00000012
line 00000013
line 00000014
line 00000015
line 00000016
line 00000017
line 00000018
line 00000019
line 00000020
line 00000021
line 00000022
line 00000023
line 00000024
line 00000025
line 00000026
line 00000027
line 00000028
line 00000029
line 00000030
line 00000031
line 00000032
line 00000033
line 00000034
line 00000035
line 00000036
line 00000037
line 00000038
line 00000039
line 00000040
line 00000041
line 00000042
line 0000004;

ÈûÍ°ê-
+
)GET /long HTTP/1.1
Host: tap.example

—

ÈûÍÀ¸ˆ
…
€HTTP/1.1 200 OK
Content-Length: 3000

line 00000001
line 00000002
line 00000003
line 00000004
line 00000005
line 00000006
line 00000007
line 00000008
line 00000009
line 00000010
line 00000011
line 00000012
line 00000013
line 00000014
line 00000015
line 00000016
line 00000017
line 00000018
line 00000019
line 00000020
line 00000021
line 00000022
line 00000023
line 00000024
line 00<

ÈûÍĞ†.
,
*GET /after HTTP/1.1
Host: tap.example

(