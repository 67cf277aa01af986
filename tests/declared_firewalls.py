"""Small logs of firewalls in declared formats, written by hand from their documentation."""

from declared_collectors import AT, BOTH, COLLECTED, HOST, SERVER, TO, Sample, as_lines, as_text
from flow_samples import SECRET

_FLOW = {
    "start": AT,
    "duration_seconds": 15.0,
    **TO,
    "device_port": 50000,
    **BOTH,
    "service": "tls",
    "source_uid": "4711",
}
_REFUSED = {"outcome": "failed", "bytes_in": 0}
_SOPHOS = (
    'device_name="SFW" timestamp="2024-11-19T08:00:{second}+0100" device_model="XGS" device_serial_id="X1" '
    'log_id="010101600001" log_type="{type}" log_component="Firewall Rule" log_subtype="{said}" '
    f'log_version=1 severity="Information" con_duration={{lasted}} user_name="{SECRET}" '
    'app_name="Secure Socket Layer Protocol" src_ip="10.8.0.21" dst_ip="203.0.113.10" protocol="TCP" '
    'src_port=50000 dst_port=443 packets_sent=9 bytes_sent={sent} bytes_received={back} con_event="{event}" '
    'con_id="4711"'
)
_SESSION = (
    "<14>1 2024-11-19T07:00:15.000Z srx RT_FLOW - RT_FLOW_SESSION_{kind} [junos@2636.1.1.1.2.129 "
    'reason="a \\"b\\"" source-address="10.8.0.21" source-port="50000" '
    'destination-address="203.0.113.10" destination-port="443" '
    'service-name="junos-https" protocol-id="6" policy-name="p" username="'
    + SECRET
    + '" session-id-32="4711" '
    'bytes-from-client="1000" bytes-from-server="{back}" elapsed-time="15" application="UNKNOWN"]'
)
_CEF = (
    "CEF:0|Palo Alto Networks|LF|2.0|{type}|{subtype}|3|dtz=UTC rt=Nov 19 2024 07:00:24 "
    "start=Nov 19 2024 07:00:17 "
    f"src=10.8.0.21 dst=203.0.113.10 suser={SECRET} app=ssl cn1=4711 cn1Label=SessionID spt=50000 dpt=443 "
    "proto=tcp act={action} out=1000 in={back} cn2=24 cn2Label=PacketsTotal "
    "PanOSSessionStartTime=Nov 19 2024 07:00:00 cn3=15 cn3Label=SessionDuration externalId=4711"
)
_LEEF = (
    "Nov 19 07:00:24 lf LEEF:2.0|Palo Alto Networks|Next Generation Firewall|10.1|{event}|\t|"
    "cat={cat}\tSubType={kind}\t"
    "devTime=2024-11-19T07:00:18.000000Z\tsrc=10.8.0.21\tdst=203.0.113.10\t" + f"usrName={SECRET}\t"
    "Application=ssl\tSessionID=4711\tsrcPort=50000\tdstPort=443\tproto=tcp\tsrcBytes=1000\tdstBytes={back}\t"
    "SessionStartTime=2024-11-19T07:00:00.000000Z\tSessionDuration=15"
)
_FINE = {"time_resolution_seconds": 1e-6}

TUNNEL = {
    "start": "2024-11-19T07:00:00.250000+00:00",
    "duration_seconds": 15.0,
    **TO,
    **HOST,
    "service": "tls",
    "outcome": "established",
    "bytes_in": 5000,
    "time_resolution_seconds": 1e-3,
}

WALLS = COLLECTED | {
    "sophos": Sample(
        "sophos",
        as_text(
            "<30>"
            + _SOPHOS.format(
                second=15, type="Firewall", said="Allowed", lasted=15, sent=1000, back=5000, event="Stop"
            ),
            _SOPHOS.format(second="00", type="Firewall", said="Denied", lasted=0, sent=60, back=0, event=""),
            _SOPHOS.format(
                second="00", type="Firewall", said="Allowed", lasted=0, sent=60, back=0, event="Start"
            ),
            _SOPHOS.format(second="09", type="IDP", said="Detect", lasted=0, sent=60, back=0, event=""),
        ),
        [_FLOW, _FLOW | _REFUSED | {"duration_seconds": 0.0, "bytes_out": 60}],
    ),
    "sophos of the device format": Sample(
        "sophos",
        as_text(
            'device="SFW" date=2024-11-19 time=07:00:15 timezone="GMT" device_name="XG" device_id=C1 '
            'log_id=0101 log_type="Firewall" log_component="Firewall Rule" log_subtype="Allowed" '
            f'priority=Information duration=15 user_name="{SECRET}" application="HTTPS" src_ip=10.8.0.21 '
            'dst_ip=203.0.113.10 protocol="TCP" src_port=50000 dst_port=443 sent_bytes=1000 recv_bytes=5000 '
            'tran_dst_ip= dir_disp="" connevent="Stop" connid="4711"'
        ),
        [_FLOW],
    ),
    "juniper": Sample(
        "juniper",
        as_text(
            _SESSION.format(kind="CREATE", back=0),
            _SESSION.format(kind="CLOSE", back=5000),
            _SESSION.format(kind="DENY", back=0),
        ),
        [_FLOW | {"time_resolution_seconds": 1.0}, _FLOW | _REFUSED],
    ),
    "zscaler firewall": Sample(
        "zscaler",
        as_lines(
            *(
                {
                    "sourcetype": "zscalernss-fw",
                    "event": {
                        "datetime": "Tue Nov 19 07:00:15 2024",
                        "user": SECRET,
                        "csip": "198.51.100.7",
                        "csport": 50000,
                        "cdip": SERVER,
                        "cdport": 443,
                        "cdfqdn": "api.example.com",
                        "proto": "TCP",
                        "nwapp": "none",
                        "nwsvc": "HTTPS",
                        "action": action,
                        "aggregate": aggregate,
                        "durationms": 15000,
                        "inbytes": 5000,
                        "outbytes": 1000,
                        "devicename": "phone-1",
                        "recordid": 4711,
                    },
                }
                for action, aggregate in (("Allow", "No"), ("Drop", "No"), ("Allow", "Yes"))
            )
        ),
        [
            _FLOW | HOST | {"device_id": "phone-1"},
            _FLOW | HOST | {"device_id": "phone-1", "outcome": "failed"},
        ],
    ),
    "cef of a log forwarder": Sample(
        "cef",
        as_text(
            _CEF.format(type="TRAFFIC", subtype="end", action="allow", back=5000),
            _CEF.format(type="TRAFFIC", subtype="deny", action="drop", back=0),
            _CEF.format(type="TRAFFIC", subtype="start", action="allow", back=0),
            _CEF.format(type="THREAT", subtype="url", action="allow", back=0),
        ),
        [_FLOW, _FLOW | _REFUSED],
    ),
    "cef of PAN-OS, whose start is the end": Sample(
        "cef",
        as_text(
            "CEF:0|Palo Alto Networks|PAN-OS|10.1.11|end|TRAFFIC|1|rt=Nov 19 2024 07:00:20 GMT "
            f"src=10.8.0.21 dst=203.0.113.10 suser={SECRET} app=ssl cn1Label=SessionID cn1=4711 spt=50000 "
            "dpt=443 proto=tcp act=allow in=1000 out=5000 start=Nov 19 2024 07:00:15 GMT "
            "cn3Label=Elapsed time in seconds cn3=15 externalId=4711"
        ),
        [_FLOW],
    ),
    "leef of a log forwarder": Sample(
        "leef",
        as_text(
            _LEEF.format(event="allow", cat="traffic", kind="end", back=5000),
            _LEEF.format(event="drop-reset", cat="traffic", kind="end", back=0),
            _LEEF.format(event="allow", cat="traffic", kind="start", back=0),
            _LEEF.format(event="alert", cat="threat", kind="url", back=0),
        ),
        [_FLOW | _FINE, _FLOW | _FINE | _REFUSED],
    ),
    "paloalto with an offset": Sample(
        "paloalto",
        as_text(
            "1,2024/11/19 09:00:21,0,TRAFFIC,end,2562,2024/11/19 09:00:20,10.8.0.21,203.0.113.10,,,r,"
            f"{SECRET},,ssl,vsys1,trust,untrust,ae1,ae2,S,2024/11/19 09:00:20,4711,1,50000,443,0,0,0x0,tcp,"
            "allow,6000,1000,5000,20,2024/11/19 09:00:00,15" + "," * 66 + "2024-11-19T09:00:20.123+02:00,,"
        ),
        [_FLOW],
    ),
    "squid with the name that TLS states": Sample(
        "squid",
        as_text(
            "1731999615.250  15000 10.8.0.21 TCP_TUNNEL/200 5000 CONNECT 203.0.113.10:443 - "
            "ORIGINAL_DST/203.0.113.10 - api.example.com",
            "1731999616.000      0 10.8.0.21 TCP_TUNNEL/200 39 CONNECT 203.0.113.10:443 - HIER_NONE/- - -",
        ),
        [
            TUNNEL,
            {
                "start": "2024-11-19T07:00:16+00:00",
                "duration_seconds": 0.0,
                **TO,
                "service": "tls",
                "outcome": "established",
                "bytes_in": 39,
                "time_resolution_seconds": 1e-3,
            },
        ],
    ),
}
