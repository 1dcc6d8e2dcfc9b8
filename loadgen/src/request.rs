//! The requests of a run, encoded once, and what their answers must look like.

use onehop_wire::http1::Method;

use crate::http2::encode::{Field, Numbers};
use crate::http2::grpc;
use crate::random::Random;
use crate::target::{Scheme, Target};

/// A request ready to be sent.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its encoded head.
    pub head: Vec<u8>,
    /// Its head as HTTP/2 has it, once it is part of a mix.
    pub fields: Vec<Field>,
    lines: Vec<(String, String)>,
    /// Its body, or what is sent to be echoed; with gRPC, one message.
    pub body: Vec<u8>,
    /// Its method, which says whether the answer has a body.
    pub method: Method,
    /// What it aims at.
    pub target: Target,
}

/// What is sent beside the URL.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The method, by default GET, or POST with a body.
    pub method: Option<String>,
    /// Further fields, `Name: value`.
    pub headers: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
    /// Says that the connection is not kept.
    pub close: bool,
    /// It is a call of gRPC: the body is a message.
    pub is_call: bool,
}

/// What an answer must look like to count as one.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// Statuses that are good; empty: 200 to 399.
    pub statuses: Vec<u16>,
    /// The body's length.
    pub length: Option<u64>,
    /// The body's CRC-32 (IEEE, as in zip).
    pub checksum: Option<u32>,
}

impl Expect {
    /// Whether a status is good.
    pub fn takes(&self, status: u16) -> bool {
        if self.statuses.is_empty() { (200..400).contains(&status) } else { self.statuses.contains(&status) }
    }
}

/// Requests with weights.
#[derive(Clone, Debug)]
pub struct Mix {
    requests: Vec<Prepared>,
    /// Running sums of the weights.
    sums: Vec<u64>,
}

impl Mix {
    /// One request alone.
    pub fn single(request: Prepared) -> Mix {
        Mix { requests: vec![request], sums: vec![1] }.numbered()
    }

    /// From a file: a line holds a URL, or a weight and a URL, or a weight, a method and a URL; `#` begins a comment.
    /// `aim` has the last word on where each leads.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub fn read(text: &str, content: &Content, aim: &dyn Fn(Target) -> Result<Target, String>) -> Result<Mix, String> {
        let mut mix = Mix { requests: Vec::new(), sums: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let at = |what: String| format!("line {}: {what}", number + 1);
            let words: Vec<&str> = line.split_whitespace().collect();
            let (weight, method, url) = match words[..] {
                [url] => ("1", None, url),
                [weight, url] => (weight, None, url),
                [weight, method, url] => (weight, Some(method), url),
                _ => return Err(at("a line holds [weight [method]] URL".to_owned())),
            };
            let weight = weight.parse::<u32>().ok().filter(|weight| *weight > 0);
            let weight = weight.ok_or_else(|| at(format!("\"{}\" is no weight (1, 2, ...)", words[0])))?;
            let mut content = content.clone();
            content.method = method.map(str::to_owned).or(content.method);
            let request = Target::parse(url).and_then(aim).and_then(|target| Prepared::new(target, &content));
            let request = request.map_err(at)?;
            if let Some(first) = mix.requests.first()
                && (first.target.scheme, &first.target.host, first.target.port)
                    != (request.target.scheme, &request.target.host, request.target.port)
            {
                return Err(at(format!("all URLs of a run lead to one address ({})", first.target.authority)));
            }
            mix.sums.push(mix.sums.last().unwrap_or(&0) + u64::from(weight));
            mix.requests.push(request);
        }
        if mix.requests.is_empty() { Err("it holds no URL".to_owned()) } else { Ok(mix.numbered()) }
    }

    /// Lets equal fields of different requests share an entry of the compression table.
    fn numbered(mut self) -> Mix {
        let mut numbers = Numbers::default();
        for request in &mut self.requests {
            let field = |(name, value): &(String, String)| Field::new(name, value, Some(numbers.of(name, value)));
            request.fields = request.lines.iter().map(field).collect();
        }
        self
    }

    /// What all of it aims at.
    pub fn target(&self) -> &Target {
        &self.requests[0].target
    }

    /// How many different requests there are.
    pub fn count(&self) -> usize {
        self.requests.len()
    }

    /// Which request is sent next.
    #[inline]
    pub fn choose(&self, random: &mut Random) -> usize {
        if self.requests.len() == 1 {
            return 0;
        }
        let ticket = random.below(self.sums.last().copied().unwrap_or(1));
        self.sums.partition_point(|sum| *sum <= ticket)
    }

    /// The request of that number.
    #[inline]
    pub fn request(&self, number: usize) -> &Prepared {
        &self.requests[number]
    }
}

impl Prepared {
    /// Encodes a request.
    ///
    /// # Errors
    /// When the method or a field is none.
    pub fn new(target: Target, content: &Content) -> Result<Prepared, String> {
        let body = content.body.clone();
        if target.scheme == Scheme::Echo {
            if body.is_empty() {
                return Err("an echo needs bytes to send: --body-size".to_owned());
            }
            let (head, fields, lines) = (Vec::new(), Vec::new(), Vec::new());
            return Ok(Prepared { head, fields, lines, body, method: Method::Other, target });
        }
        let method = content.method.clone().unwrap_or(if body.is_empty() { "GET" } else { "POST" }.to_owned());
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err(format!("\"{}\" is no method", method.escape_default()));
        }
        let given = given(content)?;
        let named = |name: &str| given.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let mut fields: Vec<(&str, &str)> = Vec::new();
        if !named("host") {
            fields.push(("Host", &target.authority));
        }
        if !named("user-agent") {
            fields.push(("User-Agent", "onehop-load"));
        }
        if content.is_call {
            fields.push(("TE", "trailers"));
            if !named("content-type") {
                fields.push(("Content-Type", "application/grpc"));
            }
        }
        fields.extend(given);
        let length = body.len().to_string();
        if !body.is_empty() && !content.is_call {
            fields.push(("Content-Length", &length));
        }
        let lines = lines(&target, &method, &fields);
        let mut head = format!("{method} {} HTTP/1.1\r\n", target.path);
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        head += if content.close { "Connection: close\r\n\r\n" } else { "\r\n" };
        let body = if content.is_call { grpc::frame(&body) } else { body };
        let method = Method::recognise(method.as_bytes());
        Ok(Prepared { head: head.into_bytes(), fields: Vec::new(), lines, body, method, target })
    }
}

/// The further fields, checked.
fn given(content: &Content) -> Result<Vec<(&str, &str)>, String> {
    let one = |header| {
        let header: &String = header;
        let (name, value) = header.split_once(':').ok_or_else(|| format!("\"{header}\" is no field: NAME: VALUE"))?;
        let framing = ["content-length", "transfer-encoding", "connection"];
        if framing.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            return Err(format!("{name} is set by the generator itself"));
        }
        if name.is_empty() || !name.bytes().all(is_token) || value.bytes().any(|byte| byte < b' ' && byte != b'\t') {
            return Err(format!("\"{}\" is no field: NAME: VALUE", header.escape_default()));
        }
        Ok((name, value.trim()))
    };
    content.headers.iter().map(one).collect()
}

/// A request as HTTP/2 has it: the pseudo-header fields first, and names in lower case.
fn lines(target: &Target, method: &str, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let host = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map_or("", |(_, value)| value);
    let scheme = if target.scheme == Scheme::Https { "https" } else { "http" };
    let pseudo = [(":method", method), (":scheme", scheme), (":authority", host), (":path", &target.path)];
    let others = fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host"));
    let all = pseudo.into_iter().chain(others.copied());
    all.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_follows_its_weights() {
        let text = "# three of four\n3 http://x:1/a\n1 POST http://x:1/b\n";
        let mix = Mix::read(text, &Content::default(), &Ok).expect("good");
        let mut random = Random::new(1, 0);
        let a = (0..4000).filter(|_| mix.request(mix.choose(&mut random)).target.path == "/a").count();
        assert!((2900..3100).contains(&a), "{a}");
        assert_eq!(mix.requests[1].method, Method::Post);
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, part) in [
            ("", "no URL"),
            ("http://x/\nhttp://y/", "line 2: all URLs"),
            ("0 http://x/", "line 1: \"0\" is no weight"),
            ("1 2 3 4", "line 1: a line holds"),
            ("nonsense", "line 1: \"nonsense\""),
        ] {
            let error = Mix::read(text, &Content::default(), &Ok).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn fields_that_would_break_the_framing_are_refused() {
        let target = Target::parse("http://x/").expect("good");
        for header in ["Content-Length: 5", "no colon", "Bad Name: x", "X: a\r\nY: b"] {
            let content = Content { headers: vec![header.to_owned()], ..Content::default() };
            assert!(Prepared::new(target.clone(), &content).is_err(), "{header}");
        }
        let content = Content { headers: vec!["Host: other".to_owned()], body: b"hi".to_vec(), ..Content::default() };
        let head = String::from_utf8(Prepared::new(target, &content).expect("good").head).expect("text");
        assert!(
            head.starts_with("POST / HTTP/1.1\r\n") && head.contains("Host: other\r\n") && !head.contains("Host: x")
        );
    }
}
