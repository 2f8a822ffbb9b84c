#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn reads_as(text: &str, printed: &str) {
    assert_eq!(Query::parse(text).unwrap().to_string(), printed, "{text}");
}

fn fails(text: &str) -> String {
    Query::parse(text).unwrap_err().to_string()
}

#[test]
fn queries_of_vast_users_are_read() {
    reads_as("", "");
    reads_as("gpu_name=RTX_4090 num_gpus=1", "gpu_name=RTX_4090 num_gpus=1");
    reads_as("gpu_name = \"RTX 4090\"", "gpu_name=RTX_4090");
    reads_as("gpu_ram>=24 dph < $0.5 verified = True", "gpu_ram>=24 dph<0.5 verified=true");
    reads_as("geolocation notin [CN, VN] cuda_vers>=12.1", "geolocation notin [CN,VN] cuda_vers>=12.1");
    reads_as("geolocation not in [CN]", "geolocation notin [CN]");
    reads_as("gpu_name in [RTX 4090,'RTX 3090']", "gpu_name in [RTX_4090,RTX_3090]");
    reads_as("compute_cap gte 800 num_gpus neq 3", "compute_cap>=800 num_gpus!=3");
    reads_as("rentable=any verified any", "rentable=any verified=any");
    reads_as("geolocation=in", "geolocation=in");
    reads_as("dph_total<1 reliability2>0.9", "dph<1 reliability>0.9");
    reads_as("driver_version >= 535.86.05", "driver_version>=535.86.5");
    reads_as("cpu_arch=x86_64", "cpu_arch=x86_64");
    reads_as("gpu_name=\"any\"", "gpu_name=\"any\"");
}

#[test]
fn or_not_and_parentheses_bind_as_written() {
    reads_as("(dph<1 or dph>2) num_gpus=1", "(dph<1 or dph>2) num_gpus=1");
    reads_as("dph<1 num_gpus=1 or dph>2", "dph<1 num_gpus=1 or dph>2");
    reads_as("not (dph<1 and num_gpus=1)", "not (dph<1 num_gpus=1)");
    reads_as("not not dph<1", "not not dph<1");
    reads_as("((dph<1) (num_gpus=1))", "dph<1 num_gpus=1");
    assert_eq!(Query::parse("dph<1 (num_gpus=1 or num_gpus=2)").unwrap().conjuncts().len(), 2);
}

#[test]
fn errors_say_where_and_what_was_expected() {
    assert_eq!(
        fails("num_gpus=1 gpu_rma>=24"),
        "column 12: there is no field `gpu_rma`: did you mean `gpu_ram` (a number (GB))?"
    );
    assert_eq!(fails("colour=red"), "column 1: there is no field `colour`");
    assert_eq!(fails("gpu_ram >= lots"), "column 12: `gpu_ram` takes a number (GB), not `lots`");
    assert!(fails("gpu_ram>=inf").contains("not `inf`"));
    assert!(fails("verified=maybe").contains("true or false"));
    assert!(fails("driver_version>=new").contains("a version"));
    assert!(fails("gpu_name>RTX_3090").contains("no order"));
    assert!(fails("gpu_name=\"RTX").contains("never closed"));
    assert!(fails("(dph<1").contains("expected `)`"));
    assert!(fails("dph<1)").contains("column 6"));
    assert!(fails("dph").contains("expected one of"));
    assert!(fails("dph<").contains("expected a value"));
    assert!(fails("dph=[1,2]").contains("a list goes with"));
    assert!(fails("gpu_name in []").contains("expected a value"));
    assert!(fails("ä=1 ").starts_with("column 1"));
    assert!(fails("gpu_name=ä !").starts_with("column 12"));
    assert!(fails("dph<1 or").contains("expected a field"));
}

#[test]
fn size_and_depth_are_bounded() {
    assert!(matches!(Query::parse(&" ".repeat(QUERY_BYTES + 1)), Err(QueryError::TooLong(_))));
    let deep = |n: usize| format!("{}dph<1{}", "(".repeat(n), ")".repeat(n));
    assert!(Query::parse(&deep(QUERY_DEPTH)).is_ok());
    assert!(matches!(Query::parse(&deep(QUERY_DEPTH + 1)), Err(QueryError::TooDeep { .. })));
    assert!(matches!(Query::parse(&"not ".repeat(10_000)), Err(QueryError::TooDeep { .. })));
    assert!(Query::parse(&"dph<1 ".repeat(QUERY_CONDITIONS)).is_ok());
    assert!(matches!(Query::parse(&"dph<1 ".repeat(QUERY_CONDITIONS + 1)), Err(QueryError::TooManyConditions { .. })));
    let list = format!("num_gpus in [{}]", vec!["1"; QUERY_VALUES + 1].join(","));
    assert!(matches!(Query::parse(&list), Err(QueryError::TooManyValues { .. })));
}

#[test]
fn every_field_is_found_by_its_name_and_has_a_line() {
    for info in fields() {
        assert_eq!(Field::by_name(info.name), Some(info.field));
        assert_eq!(info.field.info(), info);
        assert!(info.doc.ends_with('.'), "{}", info.name);
        assert_eq!(Field::nearest(info.name), Some(info.field));
    }
}

#[test]
fn versions_order_number_by_number() {
    let order = |text: &str| Version::parse(text).unwrap().order();
    assert!(order("535.104.05") > order("535.86.10"));
    assert!(order("550") > order("535.999.999"));
    assert_eq!(order("535.0.0"), order("535"));
    for bad in ["", ".", "5.", "1.2.3.4", "a", "-1", "131072", "99999999999"] {
        assert!(Version::parse(bad).is_none(), "{bad}");
    }
}

fn value(kind: Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::Number => prop_oneof![
            any::<f64>().prop_filter("finite", |x| x.is_finite()),
            (0..100_000i32).prop_map(|n| f64::from(n) / 100.0)
        ]
        .prop_map(|x| Value::Number(x + 0.0))
        .boxed(),
        Kind::Version => (0..131_072u32, 0..131_072u32, 0..131_072u32)
            .prop_map(|(a, b, c)| Value::Version(Version::parse(&format!("{a}.{b}.{c}")).unwrap()))
            .boxed(),
        Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Kind::Text => prop_oneof![".{0,12}", "[A-Za-z0-9_ \"'\\\\-]{0,12}"].prop_map(Value::Text).boxed(),
        Kind::Id => "[0-9a-zA-Z]{1,16}".prop_map(Value::Text).boxed(),
    }
}

fn condition() -> impl Strategy<Value = Expr> {
    (0..fields().len()).prop_flat_map(|i| {
        let info = &fields()[i];
        let comparison = if info.kind.is_ordered() {
            prop::sample::select(vec![
                Comparison::Less,
                Comparison::LessOrEqual,
                Comparison::Equal,
                Comparison::NotEqual,
                Comparison::GreaterOrEqual,
                Comparison::Greater,
            ])
        } else {
            prop::sample::select(vec![Comparison::Equal, Comparison::NotEqual])
        };
        let values = || prop::collection::vec(value(info.kind), 1..4);
        let test = prop_oneof![
            1 => Just(Test::Any),
            6 => (comparison, value(info.kind)).prop_map(|(c, v)| Test::Compare(c, v)),
            1 => values().prop_map(Test::In),
            1 => values().prop_map(Test::NotIn),
        ];
        let field = info.field;
        test.prop_map(move |test| Expr::Is(Condition { field, test }))
    })
}

fn tree() -> impl Strategy<Value = Expr> {
    condition().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::Either),
            inner.prop_map(|e| Expr::Not(Box::new(e))),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = Query::parse(&text);
    }

    #[test]
    fn no_text_of_near_grammar_panics_and_what_is_read_prints_and_comes_back(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "gpu_name", "dph", "rentable", "id", "driver_version", "=", "<=", "!", "in", "notin", "not", "or", "and",
                "any", "(", ")", "[", "]", ",", "1", "0.5", "RTX_4090", "true", "'", "\"", "\"a b\"", "535.1", "\\", "_", "ä",
            ]),
            0..24,
        ),
        spaced: bool,
    ) {
        let text = words.join(if spaced { " " } else { "" });
        if let Ok(query) = Query::parse(&text) {
            prop_assert_eq!(Query::parse(&query.to_string()), Ok(query));
        }
    }

    #[test]
    fn what_is_printed_reads_back_the_same(root in tree()) {
        // Parsing takes nested lists of one sort together, so the tree is brought to that form first.
        let once = Query::parse(&root.to_string()).unwrap();
        prop_assert_eq!(Query::parse(&once.to_string()).unwrap(), once);
    }

    #[test]
    fn a_condition_survives_print_and_parse(root in condition()) {
        prop_assert_eq!(Query::parse(&root.to_string()).unwrap(), Query { root });
    }
}
