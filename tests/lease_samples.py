"""DHCP logs of one device with one address, in every form that is read."""

import json

SECOND = 1_000_000
T = 1_714_557_600  # 2024-05-01T10:00:00Z, a Wednesday
A, B, RANDOM = "00:17:f2:00:00:0a", "00:17:f2:00:00:0b", "7e:00:00:00:00:01"

ZEEK = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tdhcp\n"
ZEEK += "#fields\tts\tuids\tmac\thost_name\tassigned_addr\tlease_time\tmsg_types\n"
ZEEK += f"{T}.0\tC1\t{A}\tana-phone\t10.0.0.5\t3600.0\tDISCOVER,OFFER,REQUEST,ACK\n"
ZEEK += f"{T + 60}.0\tC2\t{B}\t-\t-\t-\tDISCOVER\n"
ROW = {"ts": T, "mac": A, "host_name": "ana-phone", "assigned_addr": "10.0.0.5", "lease_time": 3600.0}
ROW |= {"msg_types": ["DISCOVER", "OFFER", "REQUEST", "ACK"]}
ISC = f"""# The format of this file is documented in the dhcpd.leases(5) manual page.
authoring-byte-order little-endian;

lease 10.0.0.5 {{
  starts 3 2024/05/01 10:00:00;
  ends 3 2024/05/01 11:00:00;
  binding state active;
  hardware ethernet {A};
  client-hostname "Ana-Phone";
}}
lease 10.0.0.6 {{
  binding state free;
}}
"""
KEA = (
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n"
)
KEA += f"10.0.0.5,{A},,3600,{T + 3600},1,0,0,ana-phone.example.,0,\n"
KEA += f"10.0.0.6,{B},,3600,{T + 3600},1,0,0,,1,\n"
FILES = {
    "zeek.log": ZEEK,
    "zeek.json": json.dumps(ROW) + "\n",
    "dhcpd.leases": ISC,
    "kea.csv": KEA,
    "dnsmasq.leases": f"{T + 3600} {A} 10.0.0.5 Ana-Phone 01:{A}\n",
}
LEFT = {"zeek.log": 2, "dhcpd.leases": 2, "kea.csv": 2}
