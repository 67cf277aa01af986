"""The scorer over HTTP. Takes the extra `serve`; nothing else of appcadence imports it but its command."""
