"""worse.py OURS.json NGINX.json: findings of testssl's on us that are worse than the same on nginx, or that are of medium
severity or worse and nginx does not have at all; then, with =, those of medium severity or worse that both have alike."""
import json, sys

ORDER = ["OK", "INFO", "LOW", "WARN", "MEDIUM", "HIGH", "CRITICAL", "FATAL"]


def read(path):
    # Ids without the port that some carry.
    return {finding["id"]: finding for finding in json.load(open(path)) if finding["severity"] in ORDER}


ours, theirs = read(sys.argv[1]), read(sys.argv[2])
for who, findings in (("us", ours), ("nginx", theirs)):
    # The last one that is looked for.
    if "RC4" not in findings:
        print(f"testssl did not run to its end on {who}: {len(findings)} findings")
for name, finding in ours.items():
    rank = ORDER.index(finding["severity"])
    other = ORDER.index(theirs[name]["severity"]) if name in theirs else ORDER.index("LOW")
    text = f"{name}={finding['severity']}"
    if rank > other and finding["severity"] != "INFO":
        print(f"{text} ({finding['finding']}; nginx: {theirs[name]['finding'] if name in theirs else 'nothing'})")
    elif rank >= ORDER.index("MEDIUM"):
        print(f"= {text} ({finding['finding']})")
