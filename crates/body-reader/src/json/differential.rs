//! The reader against the one that it replaced: on any bytes both say the same.

use proptest::prelude::*;

use super::oracle::compare;

/// Pieces of which the reader's turns depend, some longer than a block.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::sample::select(br#"{}[]()"\:,1tn -"#.to_vec()).prop_map(|byte| vec![byte]),
        2 => prop::sample::select(vec![
            &br#""a":"#[..], br#"\""#, br#"\\"#, br#""\\","#, br#"[],"#, br#"{},"#, br#""},""#,
            br#"\u0061"#, br#""x\"y":"z","#, br#"[1,2],"#, b"null", b"\xff", b"\n",
        ]).prop_map(<[u8]>::to_vec),
        2 => (prop::sample::select(br#"\"a[]{} ,"#.to_vec()), 1_usize..150)
            .prop_map(|(byte, count)| vec![byte; count]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1024, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_are_read_as_by_the_reader_that_looks_at_each(
        pieces in prop::collection::vec(piece(), 0..80), is_object: bool
    ) {
        let start = if is_object { b"{".to_vec() } else { b"[".to_vec() };
        compare(&[vec![start], pieces].concat().concat());
    }
}
