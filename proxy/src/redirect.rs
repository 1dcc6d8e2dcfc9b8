//! `onehop redirect`: what an app connects to, and what connects to it, goes through its sidecar. Programs nftables in
//! this network namespace, in one table of our own, so that putting it up twice is once, and taking it down leaves nothing.

use std::io::Write;
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};

/// What is done.
#[derive(Subcommand)]
pub enum Redirect {
    /// Shows the rules, then puts them in force.
    Up(Rules),
    /// Takes them away.
    Down,
    /// Shows what is in force.
    Show,
}

/// Which connections are redirected, and where.
#[derive(Args)]
pub struct Rules {
    /// The app's own connections go to the sidecar's outbound listener at this port.
    #[arg(long, default_value_t = 15001)]
    outbound_port: u16,
    /// Its clients' connections go to the inbound listener at this port.
    #[arg(long, default_value_t = 15006)]
    inbound_port: u16,
    /// TPROXY instead of REDIRECT: the listeners need `transparent = true` and CAP_NET_ADMIN.
    #[arg(long)]
    tproxy: bool,
    /// The user that the sidecar runs as: its own connections are left alone.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The mark of the sidecar's own connections (`runtime.mark`): they are left alone.
    #[arg(long, value_name = "MARK")]
    mark: Option<u32>,
    /// Ports of the app that are not redirected, such as those of health probes.
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    exclude_inbound: Vec<u16>,
    /// Ports that the app's connections reach directly.
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    exclude_outbound: Vec<u16>,
    /// Networks that the app's connections reach directly, such as 10.0.0.0/8 or fd00::/8.
    #[arg(long, value_delimiter = ',', value_name = "NETWORK")]
    exclude_network: Vec<String>,
    /// Only shows the rules.
    #[arg(long)]
    dry_run: bool,
}

const TABLE: &str = "inet onehop";
/// Marks packets that are to come back through loopback to a transparent socket.
const TPROXY_MARK: u32 = 0x0e0_0001;
/// Marks answers of the app to its clients' own addresses, from which the sidecar has asked: they go back to it.
const ANSWER_MARK: u32 = 0x0e0_0002;
/// The routing table that brings them there.
const ROUTES: &str = "20961";

/// Runs it.
///
/// # Errors
/// What the system refused.
pub fn run(command: &Redirect) -> Result<(), String> {
    match command {
        Redirect::Up(rules) => up(rules),
        Redirect::Down => down(),
        Redirect::Show => show(),
    }
}

fn up(rules: &Rules) -> Result<(), String> {
    if rules.user.is_none() && rules.mark.is_none() {
        return Err("who is the sidecar? Without --user or --mark its own connections would come back to it".to_owned());
    }
    if let Some(network) = rules.exclude_network.iter().find(|network| !is_network(network)) {
        return Err(format!("\"{network}\" is no network: write 10.0.0.0/8 or fd00::/8"));
    }
    let script = rules.script();
    print!("{script}");
    if rules.tproxy {
        routing(true).iter().for_each(|line| println!("# ip {}", line.join(" ")));
    }
    if rules.dry_run {
        return Ok(());
    }
    nft(&["-f", "-"], Some(&script))?;
    // Whether the routes are there already does not matter: they are taken away first.
    routing(false).iter().for_each(|line| drop(ip(line)));
    if rules.tproxy {
        for line in routing(true) {
            ip(&line)?;
        }
    }
    println!("# in force");
    Ok(())
}

fn down() -> Result<(), String> {
    routing(false).iter().for_each(|line| drop(ip(line)));
    // Adding first makes deleting what is not there no error.
    nft(&["-f", "-"], Some(&format!("add table {TABLE}\ndelete table {TABLE}\n")))?;
    println!("# nothing is redirected");
    Ok(())
}

fn show() -> Result<(), String> {
    match nft(&["list", "table", "inet", "onehop"], None) {
        Ok(text) => print!("{text}"),
        Err(_) => println!("# nothing is redirected"),
    }
    Ok(())
}

fn is_network(text: &str) -> bool {
    let (ip, bits) = text.split_once('/').unwrap_or((text, "0"));
    match (ip.parse::<std::net::IpAddr>(), bits.parse::<u8>()) {
        (Ok(ip), Ok(bits)) => bits <= if ip.is_ipv4() { 32 } else { 128 },
        _ => false,
    }
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

impl Rules {
    /// Leaves the sidecar's own connections alone.
    fn own(&self) -> String {
        let mark = self.mark.map(|mark| format!("        meta mark {mark:#x} accept\n"));
        let user = self.user.as_ref().map(|user| format!("        meta skuid \"{user}\" accept\n"));
        mark.into_iter().chain(user).collect()
    }

    fn exclusions(&self) -> String {
        let mut lines = String::new();
        if !self.exclude_outbound.is_empty() {
            lines.push_str(&format!("        tcp dport {{ {} }} accept\n", list(&self.exclude_outbound)));
        }
        for network in &self.exclude_network {
            let family = if network.contains(':') { "ip6" } else { "ip" };
            lines.push_str(&format!("        {family} daddr {network} accept\n"));
        }
        lines
    }

    fn spared(&self) -> String {
        let mut ports = vec![self.outbound_port, self.inbound_port];
        ports.extend(&self.exclude_inbound);
        format!("        tcp dport {{ {} }} accept\n", list(&ports))
    }

    fn script(&self) -> String {
        let (own, exclusions, spared) = (self.own(), self.exclusions(), self.spared());
        let (inbound, outbound) = (self.inbound_port, self.outbound_port);
        let body = if self.tproxy {
            let mark = format!("{TPROXY_MARK:#x}");
            let answer = format!("{ANSWER_MARK:#x}");
            format!(
                "    chain prerouting {{\n        type filter hook prerouting priority mangle; policy accept;\n\
                 \x20       meta l4proto != tcp accept\n\
                 \x20       iifname \"lo\" meta mark {mark} meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:{outbound} accept\n\
                 \x20       iifname \"lo\" meta mark {mark} meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:{outbound} accept\n\
                 \x20       iifname \"lo\" accept\n{spared}\
                 \x20       socket transparent 1 meta mark set {mark} accept\n\
                 \x20       fib daddr type != local accept\n\
                 \x20       meta l4proto tcp ct state new,established tproxy to :{inbound} meta mark set {mark} accept\n    }}\n\
                 \x20   chain output {{\n        type route hook output priority mangle; policy accept;\n\
                 \x20       meta l4proto != tcp accept\n\
                 \x20       ct direction reply ct mark {answer} meta mark set {answer} accept\n\
                 \x20       fib saddr type != local ct mark set {answer}\n{own}\
                 \x20       fib daddr type local accept\n{exclusions}\
                 \x20       ct direction reply accept\n\
                 \x20       meta mark set {mark}\n    }}\n"
            )
        } else {
            format!(
                "    chain prerouting {{\n        type nat hook prerouting priority dstnat; policy accept;\n\
                 \x20       meta l4proto != tcp accept\n        iifname \"lo\" accept\n{spared}\
                 \x20       fib daddr type != local accept\n        meta l4proto tcp redirect to :{inbound}\n    }}\n\
                 \x20   chain output {{\n        type nat hook output priority -100; policy accept;\n\
                 \x20       meta l4proto != tcp accept\n{own}\
                 \x20       oifname \"lo\" accept\n        fib daddr type local accept\n{exclusions}\
                 \x20       meta l4proto tcp redirect to :{outbound}\n    }}\n"
            )
        };
        format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{body}}}\n")
    }
}

/// The routing that brings marked packets to loopback, or its end.
fn routing(up: bool) -> Vec<Vec<String>> {
    let verb = if up { "add" } else { "del" };
    let mut lines = Vec::new();
    for (family, any) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
        for mark in [TPROXY_MARK, ANSWER_MARK] {
            lines.push(
                [family, "rule", verb, "fwmark", &format!("{mark:#x}"), "lookup", ROUTES].map(str::to_owned).to_vec(),
            );
        }
        lines.push([family, "route", verb, "local", any, "dev", "lo", "table", ROUTES].map(str::to_owned).to_vec());
    }
    lines
}

fn ip(arguments: &[String]) -> Result<String, String> {
    spoken("ip", arguments, None)
}

fn nft(arguments: &[&str], input: Option<&str>) -> Result<String, String> {
    spoken("nft", arguments, input)
}

fn spoken(program: &str, arguments: &[impl AsRef<std::ffi::OsStr>], input: Option<&str>) -> Result<String, String> {
    let fail = |error: std::io::Error| format!("{program} cannot be run: {error}; install nftables and iproute2");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).map_err(fail)?;
    }
    let output = child.wait_with_output().map_err(fail)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
