"""A small log in each declared format, written by hand from its documentation, with expected values.

`SECRET` marks places where people are named.
"""

from declared_collectors import AT, BOTH, HOST, PHONE, SERVER, TO, Sample, as_lines, as_text
from declared_firewalls import TUNNEL, WALLS
from flow_samples import SECRET

_PAN = (
    "1,2024/11/19 07:00:21,007051000012345,TRAFFIC,{kind},2562,2024/11/19 07:00:20,10.8.0.21,203.0.113.10,"
    f'198.51.100.7,203.0.113.10,"rule, out",{SECRET},,{{app}},vsys1,trust,untrust,ae1,ae2,Syslog,'
    "2024/11/19 07:00:20,4711,1,50000,443,40000,443,0x400053,tcp,{action},6000,1000,{back},20,"
    "2024/11/19 07:00:00,15,any,,71234,0x0,10.0.0.0-10.255.255.255,United States,,11,9,tcp-fin"
)
OWN = {"device_port": 50000}
_PAN_FLOW = {"start": AT, "duration_seconds": 15.0, **TO, **BOTH, "service": "tls", "source_uid": "4711"}
_FORTI = (
    'date=2024-11-19 time=07:00:15 devname="fw" devid="FG1" logid="{id}" type="{type}" subtype="forward" '
    'level="notice" vd="root" eventtime={at} tz="+0100" srcip=10.8.0.21 srcname="{secret}" srcport=50000 '
    'dstip=203.0.113.10 dstport=443 proto=6 action="{action}" policyname="a=b c" service="HTTPS" '
    'duration=15 sentbyte=1000 rcvdbyte=5000 sessionid=4711 app="SSL"'
)


def _forti(**more: str) -> str:
    values = {"id": "0000000013", "type": "traffic", "at": "1731999615", "secret": SECRET, "action": "close"}
    return _FORTI.format_map(values | more)


_FORTI_FLOW = {
    "start": AT,
    "duration_seconds": 15.0,
    **TO,
    **BOTH,
    "service": "tls",
    "source_uid": "4711",
}
_WEB = {
    "datetime": "2024-11-19 07:00:00",
    "reason": "Allowed",
    "event_id": "77",
    "protocol": "HTTPS",
    "action": "Allowed",
    "transactionsize": "6000",
    "responsesize": "5000",
    "requestsize": "1000",
    "serverip": SERVER,
    "ClientIP": "198.51.100.7",
    "user": SECRET,
    "url": f"api.example.com/{SECRET}",
    "vendor": "Zscaler",
    "hostname": "api.example.com",
    "devicehostname": "phone-1",
    "deviceowner": SECRET,
}
_FIELDS = {
    "time": "Tue Nov 19 07:00:00 2024",
    "login": SECRET,
    "proto": "HTTPS",
    "host": "api.example.com",
    "action": "Blocked",
    "reqsize": 1000,
    "respsize": 5000,
    "cip": "198.51.100.7",
    "sip": SERVER,
    "devicename": "phone-1",
    "recordid": 77,
    "mobappname": "Mail",
}
_WEB_FLOW = {
    "start": AT,
    "device_id": "phone-1",
    **HOST,
    "dest_ip": SERVER,
    "transport": "tcp",
    "service": "tls",
    **BOTH,
    "source_uid": "77",
}

SAMPLES = WALLS | {
    "squid": Sample(
        "squid",
        as_text(
            f"1731999615.250  15000 10.8.0.21 TCP_TUNNEL/200 5000 CONNECT api.example.com:443 {SECRET} "
            "HIER_DIRECT/203.0.113.10 -",
            f"1731999616.000      0 10.8.0.21 TCP_DENIED/503 3800 GET http://bad.example.com/{SECRET}?q=1 - "
            "HIER_NONE/- text/html",
            "1731999617.000      0 10.8.0.21 NONE/400 3800 GET error:invalid-request - HIER_NONE/- text/html",
        ),
        [
            TUNNEL,
            {
                "start": "2024-11-19T07:00:16+00:00",
                "duration_seconds": 0.0,
                "device_id": PHONE,
                "dest_host": "bad.example.com",
                "dest_host_source": "observed",
                "dest_port": 80,
                "transport": "tcp",
                "service": "http",
                "outcome": "failed",
                "bytes_in": 3800,
                "time_resolution_seconds": 1e-3,
            },
        ],
    ),
    "fortinet": Sample(
        "fortinet",
        as_text(
            f"<189>{_forti()}",
            f"Nov 19 07:00:16 fw {_forti(at='1731999615000000000')}",
            f"<189>{_forti(type='event')}",
            f"<189>{_forti(id='0000000020', action='accept')}",
        ),
        [_FORTI_FLOW | OWN, _FORTI_FLOW | OWN],
    ),
    "fortinet by date": Sample(
        "fortinet",
        as_text(
            _forti(action="deny").replace("eventtime=1731999615 ", "").replace("rcvdbyte=5000", "rcvdbyte=0")
        ),
        [_FORTI_FLOW | OWN | {"start": "2024-11-19T06:00:00+00:00", "outcome": "failed", "bytes_in": 0}],
    ),
    "paloalto": Sample(
        "paloalto",
        as_text(
            _PAN.format(kind="end", app="ssl", action="allow", back=5000),
            f"<14>Nov 19 07:00:21 fw {_PAN.format(kind='drop', app='other', action='deny', back=0)},more",
            _PAN.format(kind="start", app="ssl", action="allow", back=0),
            "1,2024/11/19 07:00:21,007051000012345,THREAT,url,2562,2024/11/19 07:00:20,10.8.0.21",
        ),
        [
            _PAN_FLOW | OWN,
            {
                "start": AT,
                "duration_seconds": 15.0,
                **TO,
                **OWN,
                "outcome": "failed",
                "bytes_out": 1000,
                "bytes_in": 0,
                "source_uid": "4711",
            },
        ],
    ),
    "paloalto exported": Sample(
        "paloalto",
        as_text(
            "Domain,Receive Time,Type,Threat/Content Type,Generate Time,Source address,Destination address,"
            "Application,Session ID,Destination Port,IP Protocol,Action,Bytes Sent,Bytes Received,Start Time,"
            "Elapsed Time (sec)",
            "1,2024/11/19 07:00:21,TRAFFIC,end,2024/11/19 07:00:20,10.8.0.21,203.0.113.10,ssl,4711,443,tcp,"
            "allow,1000,5000,2024/11/19 07:00:00,15",
        ),
        [_PAN_FLOW],
    ),
    "paloalto exported, all columns": Sample(
        "paloalto",
        as_text(
            "Domain,Receive Time,Serial #,Type,Threat/Content Type,Config Version,Generate Time,"
            "Source address,Destination address,NAT Source IP,NAT Destination IP,Rule,Source User,"
            "Destination User,Application,Virtual System,Source Zone,Destination Zone,Inbound Interface,"
            "Outbound Interface,Log Action,Time Logged,Session ID,Repeat Count,Source Port,Destination Port,"
            "NAT Source Port,NAT Destination Port,Flags,IP Protocol,Action,Bytes,Bytes Sent,Bytes Received,"
            "Packets,Start Time,Elapsed Time (sec)",
            ",".join(_PAN.format(kind="end", app="ssl", action="allow", back=5000).split(",")[:38]),
        ),
        [_PAN_FLOW | OWN],
    ),
    "cef": Sample(
        "cef",
        as_text(
            "Nov 19 07:00:15 fw CEF:0|Fortinet|Fortigate|v7.4.3|00013|traffic:forward close|3|"
            "deviceExternalId=F FTNTFGTeventtime=1731999615 src=10.8.0.21 spt=50000 dst=203.0.113.10 dpt=443 "
            f"proto=6 act=close suser={SECRET} app=HTTPS FTNTFGTduration=15 out=1000 in=5000 externalId=4711 "
            "FTNTFGTdstcountry=United States",
            "<14>1 2024-11-19T07:00:15Z fw CEF: 0|Palo Alto Networks|PAN-OS|11.0|end|TRAFFIC|1|"
            "start=Nov 19 2024 07:00:00 GMT rt=Nov 19 2024 07:00:15 src=10.8.0.21 dst=203.0.113.10 dpt=443 "
            "proto=tcp act=allow in=1000 out=5000 app=ssl",
            "CEF:0|Zscaler|NSSWeblog|5.7|Blocked|Blocked|3|act=Blocked app=HTTPS dhost=api.example.com "
            "dst=203.0.113.10 src=10.8.0.21 in=5000 out=1000 rt=Nov 19 2024 07:00:00 "
            rf"request=api.example.com/{SECRET}?a\=b suser={SECRET} externalId=77",
            r"CEF:0|Example \| Co|Audit|1|login|Login|3|suser=nobody src=10.8.0.21 rt=1731999600000",
        ),
        [
            _PAN_FLOW | OWN,
            {"start": AT, **TO, **BOTH, "service": "tls"},
            {
                "start": AT,
                "device_id": PHONE,
                **HOST,
                "dest_ip": SERVER,
                "transport": None,
                "service": "tls",
                "outcome": "failed",
                "bytes_out": 1000,
                "bytes_in": 5000,
                "source_uid": "77",
            },
        ],
    ),
    "leef": Sample(
        "leef",
        as_text(
            "<13>Nov 19 07:00:15 nss LEEF:1.0|Zscaler|NSS|4.1|Allowed|cat=Allowed\t"
            "devTime=Nov 19 2024 07:00:00 GMT\tdevTimeFormat=MMM dd yyyy HH:mm:ss z\tsrc=10.8.0.21\t"
            f"dst=203.0.113.10\tsrcBytes=1000\tdstBytes=5000\tusrName={SECRET}\trecordid=77\t"
            f"hostname=api.example.com\tappproto=HTTPS\turl=api.example.com/{SECRET}"
        ),
        [
            {
                "start": AT,
                "device_id": PHONE,
                **HOST,
                "dest_ip": SERVER,
                "service": "tls",
                **BOTH,
                "source_uid": "77",
            }
        ],
    ),
    "leef of version 2": Sample(
        "leef",
        as_text(
            "LEEF:2.0|Example|Wall|1.0|deny|^|devTime=1731999600250^src=10.8.0.21^dst=203.0.113.10^"
            f"srcPort=50000^dstPort=443^proto=TCP^usrName={SECRET}^action=deny^srcBytes=60"
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                **TO,
                **OWN,
                "outcome": "failed",
                "bytes_out": 60,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "leef between bars": Sample(
        "leef",
        as_text(
            "LEEF:1.0|Palo Alto Networks|PAN-OS Syslog Integration|11|allow|ReceiveTime=2024/11/19 07:00:15|"
            f"Type=TRAFFIC|Subtype=end|src=10.8.0.21|dst=203.0.113.10|RuleName =r|usrName={SECRET}|"
            "Application=ssl|srcPort=50000|dstPort=443|proto=tcp|action=allow|srcBytes=1000|dstBytes=5000|"
            "StartTime=2024/11/19 07:00:00|ElapsedTime=15|SessionID=4711"
        ),
        [_PAN_FLOW | OWN],
    ),
    "umbrella": Sample(
        "umbrella",
        as_text(
            '"2024-11-19 07:00:00","phone-1","phone-1,Site","10.8.0.21","198.51.100.7","Allowed","1 (A)",'
            '"NOERROR","api.example.com.","Infrastructure","Mobile Devices","Mobile Devices",""',
            f'"2024-11-19 07:01:00","{SECRET}, Jo (jo@example.com)","phone-2","10.8.0.22","198.51.100.7",'
            '"Blocked","28 (AAAA)","NOERROR","bad.example.com.","Malware","AD Users","AD Users","","1"',
            '"2024-11-19 07:02:00","phone-1", "phone-1", "10.8.0.21","198.51.100.7","Allowed","1 (A)", '
            '"NXDOMAIN","no.example.com.", "Infrastructure"',
        ),
        [
            {
                "start": AT,
                "device_id": "phone-1",
                **HOST,
                "service": "dns",
                "outcome": "established",
            },
            {
                "start": "2024-11-19T07:01:00+00:00",
                "device_id": "10.8.0.22",
                "dest_host": "bad.example.com",
                "dest_host_source": "observed",
                "service": "dns",
                "outcome": "failed",
            },
            {
                "start": "2024-11-19T07:02:00+00:00",
                "device_id": "phone-1",
                "dest_host": "no.example.com",
                "dest_host_source": "observed",
                "service": "dns",
                "outcome": "failed",
            },
        ],
    ),
    "pcapdroid": Sample(
        "pcapdroid",
        as_text(
            "IPProto,SrcIP,SrcPort,DstIp,DstPort,UID,App,Proto,Status,Info,BytesSent,BytesRcvd,PktsSent,PktsRcvd,"
            "FirstSeen,LastSeen",
            "6,10.8.0.21,50000,203.0.113.10,443,10123,Mail,TLS,Closed,api.example.com,1000,5000,9,9,"
            "1731999600250,1731999601750",
            "17,10.8.0.21,50001,203.0.113.53,53,1051,Unknown,DNS,Unreachable,api.example.com,60,0,1,0,"
            "1731999600000,1731999600000",
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                "app_id": "Mail",
                "app_attribution": "process",
                **HOST,
                **TO,
                **OWN,
                **BOTH,
                "service": "tls",
                "time_resolution_seconds": 1e-3,
            },
            {
                "start": AT,
                "duration_seconds": 0.0,
                "device_id": PHONE,
                **HOST,
                "dest_ip": "203.0.113.53",
                "dest_port": 53,
                "device_port": 50001,
                "transport": "udp",
                "service": "dns",
                "outcome": "failed",
                "bytes_out": 60,
                "bytes_in": 0,
                "time_resolution_seconds": 1e-3,
            },
        ],
    ),
    "zscaler by its template": Sample(
        "zscaler", as_lines({"sourcetype": "zscalernss-web", "event": _WEB}), [_WEB_FLOW]
    ),
    "zscaler without an envelope": Sample(
        "zscaler",
        as_lines(_FIELDS),
        [_WEB_FLOW | {"outcome": "failed", "app_id": "Mail", "app_attribution": "display_name"}],
    ),
    "zscaler CSV": Sample(
        "zscaler",
        as_text(",".join(_WEB), ",".join(_WEB.values())),
        [_WEB_FLOW],
    ),
    "zscaler CSV by default": Sample(
        "zscaler",
        as_text(
            f'"Tue Nov 19 07:00:00 2024","{SECRET}","HTTPS","api.example.com/{SECRET}","Allowed","General",'
            '"Business","1000","5000","4","40","Business","Business","Business","None","None","0","None","None",'
            f'"HQ","Dept","198.51.100.7","203.0.113.10","GET","200","Agent","None","None","None","text","None",'
            f'"{SECRET}","phone-1","Software"'
        ),
        [{**_WEB_FLOW, "source_uid": None}],
    ),
    "zscaler between tabs": Sample(
        "zscaler",
        (
            "<14>Nov 19 07:00:01 nss 2024-11-19 07:00:00\t"
            + "\t".join(f"{k}={v}" for k, v in _WEB.items() if k != "datetime")
        ).encode()
        + b"\n",
        [_WEB_FLOW],
    ),
}
