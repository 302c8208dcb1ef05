//! Any bytes: the reader says what the one says that it replaced, and so does the watch for a
//! second model, in pieces of any size.

use body_reader::json::oracle;
use body_reader::second_model::SecondModel;

use crate::input;
use crate::pieces::pieces;

pub(crate) fn run(bytes: &[u8]) {
    oracle::compare(bytes);
    let Some((cuts, document)) = input::<(Vec<u8>, &[u8])>(bytes) else { return };
    oracle::compare(document);
    let whole = SecondModel::default().read(document);
    let mut watch = SecondModel::default();
    let mut in_pieces = false;
    for piece in pieces(&cuts, document) {
        let shows = watch.read(piece);
        assert!(shows || !in_pieces, "what has shown is not forgotten");
        in_pieces = shows;
    }
    assert_eq!(in_pieces, whole);
}
