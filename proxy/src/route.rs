//! `onehop route`: which route a request takes, and why each other one does not.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use onehop_meter::Registry;
use onehop_plan::model::{Model, Route};
use onehop_plan::route::{Conditions, Facts, Parts, PathBuffers, Pattern, Scratch, Verdict, explain};
use onehop_plan::{Layer, Listener};

/// A request, as it would come.
#[derive(Args)]
pub struct Question {
    /// A TOML file, or a folder of them.
    #[arg(long)]
    config: PathBuf,
    /// The request's method.
    method: String,
    /// Its URL: http://HOST/PATH?QUERY.
    url: String,
    /// A header field, as curl takes it; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client's address.
    #[arg(long, default_value = "127.0.0.1")]
    source: IpAddr,
    /// The name in the client's TLS greeting.
    #[arg(long)]
    sni: Option<String>,
    /// One listener alone.
    #[arg(long)]
    listener: Option<String>,
}

struct Asked {
    host: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

/// Prints the answer.
///
/// # Errors
/// When the configuration or the URL cannot be used.
pub fn run(question: &Question) -> Result<(), String> {
    let loaded = onehop_config::load(&question.config).map_err(|failure| failure.to_string())?;
    let model = &loaded.model;
    let snapshot = onehop_plan::compile(model, &Registry::new(1), None)
        .map_err(|problems| crate::boot::explain(&problems, Some(&loaded)))?;
    let asked = parse(question)?;
    let wanted = |listener: &Listener| question.listener.as_deref().is_none_or(|name| name == &*listener.name);
    let listeners: Vec<_> =
        snapshot.listeners.iter().filter(|listener| listener.layer != Layer::Tcp && wanted(listener)).collect();
    if listeners.is_empty() {
        return Err("there is no such HTTP listener".to_owned());
    }
    for listener in listeners {
        tell(listener, model, question, &asked)?;
    }
    Ok(())
}

fn parse(question: &Question) -> Result<Asked, String> {
    let url = &question.url;
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or_else(|| format!("\"{url}\" is no URL: http://HOST/PATH"))?;
    let rest = rest.split('#').next().unwrap_or(rest);
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (path, query) = rest[at..].split_once('?').unwrap_or((&rest[at..], ""));
    let field = |text: &String| {
        let (name, value) = text.split_once(':').ok_or_else(|| format!("\"{text}\" is no header: 'NAME: VALUE'"))?;
        Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers: Vec<(String, String)> = question.headers.iter().map(field).collect::<Result<_, String>>()?;
    let named = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.clone());
    Ok(Asked {
        host: named.unwrap_or_else(|| rest[..at].to_owned()),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
    })
}

fn tell(listener: &Listener, model: &Model, question: &Question, asked: &Asked) -> Result<(), String> {
    println!("listener {} ({})", listener.name, listener.address);
    let mut buffers = PathBuffers::default();
    let normal = match listener.http.path.apply(asked.path.as_bytes(), &mut buffers) {
        Ok(normal) => normal,
        Err(why) => {
            println!("  the path is refused with 400: {why:?}");
            return Ok(());
        }
    };
    if normal.matched != asked.path.as_bytes() {
        println!("  the path is read as {}", String::from_utf8_lossy(normal.matched));
    }
    let header = |name: &str| {
        let values: Vec<&str> =
            asked.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| Cow::Owned(values.join(",").into_bytes()))
    };
    let facts = Facts {
        host: asked.host.as_bytes(),
        path: normal.matched,
        query: asked.query.as_bytes(),
        method: question.method.as_bytes(),
        header: &header,
        source: question.source,
        sni: question.sni.as_deref(),
    };
    let parts: Vec<Parts> = model.routes.iter().map(parts).collect::<Result<_, String>>()?;
    let serves = |route: &Route| route.listeners.is_empty() || route.listeners.contains(&listener.name.to_string());
    let verdicts = explain(&model.routes, &parts, serves, &facts);
    let table = listener.hosts.upgrade();
    let found = table.as_ref().and_then(|table| table.find(&facts, &mut Scratch::default()));
    let width = model.routes.iter().map(|route| route.name.len()).max().unwrap_or(0);
    for (route, verdict) in model.routes.iter().zip(verdicts) {
        let name = &route.name;
        match verdict {
            Verdict::Wins => println!("* {name:width$}  takes it: {}", action(route)),
            Verdict::OtherListener => println!("  {name:width$}  serves other listeners"),
            Verdict::Unmatched(why) | Verdict::Preceded(why) => println!("  {name:width$}  {why}"),
        }
    }
    match found {
        Some(found) => println!("-> {}", found.name),
        None => println!("-> no route: 404"),
    }
    Ok(())
}

fn parts(route: &Route) -> Result<Parts, String> {
    let conditions = Conditions::new(route).map_err(|(_, error)| error)?;
    Ok(Parts {
        conditions: (!conditions.is_empty()).then(|| std::sync::Arc::new(conditions)),
        pattern: std::sync::Arc::new(Pattern::new(&route.path)?),
    })
}

fn action(route: &Route) -> String {
    use onehop_plan::model::Action;
    match &route.action {
        Action::Redirect(redirect) => format!("redirect with {}", redirect.status),
        Action::Respond(respond) => format!("respond with {}", respond.status),
        Action::Forward => {
            let targets: Vec<String> = match route.targets.as_slice() {
                [only] => vec![only.cluster.clone()],
                many => many.iter().map(|target| format!("{} ({})", target.cluster, target.weight)).collect(),
            };
            format!("cluster {}", targets.join(", "))
        }
    }
}
