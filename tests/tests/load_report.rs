//! The generator's search for saturation, and its page.

use onehop_tests::{Load, LoadOrigin, folder};

#[test]
fn saturation_is_found_confirmed_and_drawn() {
    // Four connections and 10 ms a request: 400 a second at most.
    let origin = LoadOrigin::start(&["--service", "10ms"]);
    let page = folder().join("knee.html");
    let path = page.to_str().expect("text");
    let search = ["--find-saturation", "--probe", "150ms", "--p99-limit", "2s", "--confirmations", "1", "-c", "4"];
    let load = Load::run(&[&search[..], &["--arrivals", "constant", "--html", path, &origin.url]].concat());
    assert!(load.succeeded(), "{}{}", load.out, load.error);
    let rate = load.number("/saturation");
    assert!((1.0..420.0).contains(&rate), "{rate}");
    assert!(load.out.contains("confirmed") && load.out.contains("####"), "{}", load.out);
    let html = std::fs::read_to_string(page).expect("a page");
    assert!(html.contains("Latency by offered rate") && html.contains("</svg>"));
}

#[test]
fn the_page_needs_nothing_else() {
    let origin = LoadOrigin::start(&[]);
    let page = folder().join("run.html");
    let path = page.to_str().expect("text");
    let load = Load::run(&["--rate", "200", "-d", "300ms", "--warm-up", "0s", "--html", path, &origin.url]);
    assert!(load.succeeded(), "{}", load.error);
    let html = std::fs::read_to_string(page).expect("a page");
    for part in ["Latency by percentile", "Requests a second over time", "Latency over time", "Send lateness", "p99.99"]
    {
        assert!(html.contains(part), "{part}");
    }
    let fetches = ["src=", "href=", "@import", "url("];
    assert!(!fetches.iter().any(|word| html.contains(word)) && !html.contains("NaN"));
}
