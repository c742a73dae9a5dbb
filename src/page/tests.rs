//! The page of extreme and of hostile data.

use super::{view::SCRIPT, view::STYLE, *};

const HOSTILE: &str = "</script><!--<script>alert(1)</script>\"'\u{202e}\0<img src=x onerror=alert(1)>";

fn html(page: &Page) -> String {
    let mut out = Vec::new();
    write(page, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn an_empty_page_is_whole() {
    let html = html(&Page::default());
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert!(html.contains("No request has a time."));
}

#[test]
fn a_request_of_which_nothing_is_known_has_a_row() {
    let request = Request { connection: Some(7), route: Some(9), detail: Some(3), ..Request::default() };
    let page = Page {
        requests: vec![request.clone(), Request { time: Some(u64::MAX), duration: Some(u64::MAX), ..request }],
        details: vec![Detail::default(), Detail { request: 99, ..Detail::default() }],
        routes: vec![Route { histogram: vec![0, 1], ..Route::default() }],
        activity: Activity { start: u64::MAX, width: u64::MAX, bins: vec![ActivityBin::default(); 2] },
        ..Page::default()
    };
    assert!(html(&page).contains("no response"));
}

#[test]
fn hostile_text_stays_text() {
    let text = || HOSTILE.to_owned();
    let request = Request { method: text(), host: text(), path: text(), origin_reason: text(), ..Request::default() };
    let request = Request { failed: true, detail: Some(0), time: Some(1), connection: Some(0), ..request };
    let bytes = || HOSTILE.as_bytes().to_vec();
    let message = Message { line: bytes(), fields: vec![(bytes(), bytes())], ..Message::default() };
    let message = Message { body: Body { shown: bytes(), size: Some(1), note: text() }, ..message };
    let exchange = Exchange { request: Some(message.clone()), response: Some(message) };
    let page = Page {
        title: text(),
        filter: Some(text()),
        redacted: Some(text()),
        files: vec![text()],
        requests: vec![request],
        connections: vec![Connection { source: text(), note: text(), ..Connection::default() }],
        routes: vec![Route { method: text(), host: text(), route: text(), ..Route::default() }],
        details: vec![Detail {
            exchange,
            commands: vec![Command { label: text(), text: text() }],
            ..Detail::default()
        }],
        findings: vec![Finding {
            severity: crate::trace::Severity::Error,
            code: text(),
            file: text(),
            place: text(),
            text: text(),
            count: 1,
        }],
        list_command: text(),
        ..Page::default()
    };
    let html = html(&page);
    // The page's own two script elements are all there are.
    assert_eq!((html.matches("<script").count(), html.matches("</script").count()), (2, 2));
    assert!(!html.contains("<img") && !html.contains("<!--") && !html.contains('\u{202e}') && !html.contains('\0'));
}

#[test]
fn script_and_style_do_not_end_their_elements() {
    assert!(!SCRIPT.contains("</") && !SCRIPT.contains("<!--") && !SCRIPT.contains("innerHTML"));
    assert!(!STYLE.contains("</") && !STYLE.contains("@import"));
}

#[test]
fn the_same_data_give_the_same_page() {
    let page = Page { requests: vec![Request::default(); 3], ..Page::default() };
    assert_eq!(html(&page), html(&page));
}
