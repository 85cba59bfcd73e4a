//! Rows that are continued together: each gets what it gets alone.
mod kit;
use std::collections::HashMap;

use kit::*;
use libpeft::*;

fn told(s: &mut Session, most: usize) -> HashMap<i64, Vec<RowToken>> {
    let mut all: HashMap<i64, Vec<RowToken>> = HashMap::new();
    for _ in 0..most {
        match s.next_tokens().unwrap() {
            Some(tokens) => tokens.into_iter().for_each(|t| all.entry(t.row).or_default().push(t)),
            None => break,
        }
    }
    all
}

fn several() -> (Context, Model, Adapters) {
    let (ctx, model, adapters) = set();
    adapters.add("b", "ia3", (), 2).unwrap();
    adapters.add("p", "prefix", [("num_virtual_tokens", 3)], 3).unwrap();
    for name in ["a", "b", "p"] {
        shake(&adapters, name, 0.3);
    }
    (ctx, model, adapters)
}

#[test]
fn rows_get_what_they_get_alone() {
    let (ctx, _, adapters) = several();
    let t = tokenizer(&ctx);
    let mut s = Session::new(&adapters, "a", ()).unwrap();
    let o = Options::new()
        .set("max_new_tokens", 12)
        .set("ignore_eos", true)
        .set("temperature", 1.5)
        .set("seed", 3);
    let rows = [
        (None, "Es war "),
        (Some("b"), "ein"),
        (Some(""), "mal"),
        (Some("p, 0.5 * a"), "x"),
        (Some("p"), "ein"),
    ];
    let mut numbers = Vec::new();
    let mut all: HashMap<i64, Vec<RowToken>> = HashMap::new();
    for (expression, prompt) in rows {
        numbers.push(s.add_row(expression, &t, prompt, &o).unwrap()); // each joins those that are under way
        for token in s.next_tokens().unwrap().unwrap() {
            all.entry(token.row).or_default().push(token);
        }
    }
    let ids = t.encode("by ids", Tokenize::SPECIAL).unwrap();
    let bare = s.add_row_ids(Some("b"), None, &ids, &o).unwrap();
    for (row, tokens) in told(&mut s, 100) {
        all.entry(row).or_default().extend(tokens);
    }
    for ((expression, prompt), number) in rows.iter().zip(&numbers) {
        let mut alone = Session::new(&adapters, expression.unwrap_or("a"), ()).unwrap();
        let pieces: Vec<Piece> = alone.stream(&t, prompt, &o).unwrap().collect::<Result<_>>().unwrap();
        let got = &all[number];
        assert_eq!(
            got.iter().map(|x| x.id.unwrap()).collect::<Vec<_>>(),
            pieces.iter().map(|p| p.id).collect::<Vec<_>>()
        );
        assert_eq!(
            got.iter().map(|x| x.text.as_str()).collect::<String>(),
            pieces.iter().map(|p| p.text.as_str()).collect::<String>()
        );
        assert_eq!(
            got.iter().map(|x| x.ended).collect::<Vec<_>>(),
            (0..12).map(|i| i == 11).collect::<Vec<_>>()
        );
        assert!(got.iter().all(|x| x.error.is_none()));
    }
    let mut alone = Session::new(&adapters, "b", ()).unwrap();
    assert_eq!(
        all[&bare].iter().map(|x| x.id.unwrap()).collect::<Vec<_>>(),
        alone.generate_ids(None, &ids, &o).unwrap()
    );
    assert!(all[&bare].iter().all(|x| x.text.is_empty()));
    assert_eq!(s.next_tokens().unwrap(), None);
}

#[test]
fn rows_are_taken_out_and_held() {
    let (ctx, _, adapters) = several();
    let t = tokenizer(&ctx);
    let mut s = Session::new(&adapters, "", ()).unwrap();
    let o = Options::new().set("max_new_tokens", 5).set("ignore_eos", true);
    let (one, two) =
        (s.add_row(Some("a"), &t, "one", &o).unwrap(), s.add_row(Some("b"), &t, "two", &o).unwrap());
    assert_ne!(one, two);
    told(&mut s, 2);
    refused(adapters.remove("a"), Status::Busy, "\"a\"");
    s.remove_row(one).unwrap();
    refused(s.remove_row(one), Status::NotFound, &one.to_string());
    assert_eq!(told(&mut s, 100).keys().collect::<Vec<_>>(), [&two]);
    refused(s.remove_row(two), Status::NotFound, "");
    adapters.remove("a").unwrap();
    let held =
        s.add_row(Some("b"), &t, "a text that others begin with", o.clone().set("hold", true)).unwrap();
    assert_eq!(told(&mut s, 100)[&held].len(), 5);
    assert_eq!(s.next_tokens().unwrap(), None);
    let like = s.add_row(Some("b"), &t, "a text that others begin with, too", &o).unwrap();
    assert_eq!(told(&mut s, 100)[&like].len(), 5);
    refused(adapters.remove("b"), Status::Busy, "");
    s.remove_row(held).unwrap();
    adapters.remove("b").unwrap();
}

#[test]
fn rows_that_cannot_be() {
    let (ctx, _, adapters) = several();
    let t = tokenizer(&ctx);
    let mut s = Session::new(&adapters, "", [("max_length", 24)]).unwrap();
    assert_eq!(s.next_tokens().unwrap(), None);
    refused(s.add_row(Some("z"), &t, "x", ()), Status::NotFound, "\"z\"");
    refused(s.add_row(Some("a\0"), &t, "x", ()), Status::Invalid, "NUL at byte 1");
    refused(s.add_row(Some("batch_split(a:1, b:1)"), &t, "x", ()), Status::Unsupported, "divides rows");
    refused(s.add_row(None, &t, "x", [("num_beams", 2)]), Status::Unsupported, "num_beams");
    refused(s.add_row(None, &t, "x", [("temprature", 1.0)]), Status::Key, "temperature");
    refused(s.add_row_ids(None, None, &[], ()), Status::Invalid, "");
    refused(s.add_row_ids(None, None, &[260], ()), Status::Invalid, "260");
    refused(s.add_row_ids(None, None, &[1; 24], ()), Status::Shape, "24");
    let o = Options::new().set("ignore_eos", true).set("max_new_tokens", 4);
    let rows: Vec<i64> = (0..24).map_while(|_| s.add_row_ids(None, None, &[1, 2], &o).ok()).collect();
    assert_eq!(rows.len(), 24);
    let canceller = s.canceller();
    canceller.cancel();
    refused(s.next_tokens(), Status::Cancelled, ""); // the rows are as they were
    let all = told(&mut s, 100);
    assert!(rows.iter().all(|r| all[r].len() == 4));
    while s.add_row_ids(None, None, &[1, 2], &o).is_ok() {}
    refused(s.add_row_ids(None, None, &[1, 2], &o), Status::Busy, "rows");
    let nothing =
        Session::new(&adapters, "", ()).unwrap().add_row_ids(None, None, &[1], [("max_new_tokens", 0)]);
    assert!(nothing.unwrap() > 0);
}

#[test]
fn a_row_without_a_number_ends_with_the_reason() {
    let (_, _, adapters) = several();
    let t = adapters.tensors("a").unwrap();
    for t in &t {
        adapters.write_tensor("a", &t.name, &vec![f32::NAN; t.len()]).unwrap();
    }
    let mut s = Session::new(&adapters, "", ()).unwrap();
    let o = Options::new().set("ignore_eos", true).set("max_new_tokens", 4);
    let (bad, good) = (
        s.add_row_ids(Some("a"), None, &[1, 2], &o).unwrap(),
        s.add_row_ids(Some("b"), None, &[1, 2], &o).unwrap(),
    );
    let all = told(&mut s, 100);
    let last = all[&bad].last().unwrap();
    assert_eq!((all[&bad].len(), last.id, last.ended, last.error), (1, None, true, Some(Status::Numeric)));
    assert!(all[&good].len() == 4 && all[&good].iter().all(|x| x.error.is_none()));
}
