"""What log pipelines put around a line: for each, a function from a line to a JSON record or a line."""

IN_RECORDS = {
    "a message": lambda line: {"@timestamp": "2024-11-19T07:00:00Z", "message": line, "tags": ["x"]},
    "event.original": lambda line: {"event": {"original": line, "module": "x"}, "agent": {}},
    "docker": lambda line: {"log": line + "\n", "stream": "stdout", "time": "2024-11-19T07:00:00Z"},
    "elasticsearch of filebeat": lambda line: {
        "_index": "logs",
        "_source": {"message": line, "a": 1, "b": 2},
    },
    "journald": lambda line: {"__CURSOR": "s=1", "_PID": "12", "MESSAGE": line},
    "logscale": lambda line: {"@timestamp": 1732000000250, "@rawstring": line, "#repo": "zeek"},
    "loki": lambda line: {"line": line, "timestamp": "2024-11-19T07:00:00Z", "labels": {"job": "x"}},
    "graylog": lambda line: {"version": "1.1", "host": "h", "short_message": line, "level": 6},
    "rsyslog": lambda line: {"time": "2024-11-19T07:00:00Z", "host": "h", "msg": line},
    "datadog": lambda line: {"id": "A", "type": "log", "attributes": {"message": line, "host": "h"}},
    "splunk": lambda line: {"preview": False, "result": {"_raw": line, "_time": "x", "host": "h"}},
    "splunk's collector": lambda line: {"time": 1732000000, "host": "h", "sourcetype": "x", "event": line},
}
IN_LINES = {
    "rfc 3164": "<13>Feb 26 10:36:44 pfSense suricata: {}",
    "rfc 3164 without priority": "Nov 19 07:06:40 sensor zeek[12]: {}",
    "rfc 5424": "<134>1 2024-11-19T07:06:40.250Z sensor zeek - - - {}",
    "a time with a blank": "2024-11-19 07:06:40 sensor suricata[12]: {}",
    "a time of a program": "2024-11-19 07:06:40.250 INFO [main] {}",
    "a time before it": "2024-11-19T07:06:40Z sensor zeek {}",
    "kubernetes": "2024-11-19T07:06:40.123456789Z stdout F {}",
}
