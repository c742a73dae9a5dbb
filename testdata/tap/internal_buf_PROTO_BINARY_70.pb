œF 
	
inner
innerclient-16

ÇûÍ°ê(
&
$GET /inner HTTP/1.1
Host: inner

>

ÇûÍàÔ0
.
,HTTP/1.1 200 OK
Content-Length: 6

inner
