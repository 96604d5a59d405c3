//! What worker processes answer: a model's own code runs in them, so that nothing they say is trusted.
//!
//! Not here: moving packets, and the checks that need a lane's memory (`backend_host`).

use backend_host::protocol::{self, Header, Kind, PACKET_BYTES_MAX, Place, Ready, TENSORS_MAX};
use models::{DType, Entry, RANK_MAX, Shape, Signature};

pub(super) fn packet(bytes: &[u8]) {
    let mut places = Vec::new();
    if protocol::read(bytes, &mut places).is_ok() {
        assert!(places.len() <= TENSORS_MAX);
        for place in &places {
            assert!(place.end().is_some() && place.shape.dims().len() <= RANK_MAX);
        }
        let mut again = Vec::new();
        protocol::write(&mut again, &Header::new(Kind::Answer, 1), &places);
        let mut same = Vec::new();
        assert!(again.len() <= PACKET_BYTES_MAX && protocol::read(&again, &mut same).is_ok());
        assert_eq!(places, same);
    }
    let Ok(ready) = serde_json::from_slice::<Ready>(bytes) else { return };
    let _ = Signature::try_from(ready.signature);
    ready.entries.into_iter().for_each(|entry| drop(Entry::try_from(entry)));
}

pub(super) fn packets() -> Vec<Vec<u8>> {
    let place = |dtype, dims: &[usize], offset, length| {
        Shape::new(dims).map(|shape| Place { dtype, shape, offset, length })
    };
    let places: Vec<Place> =
        [place(DType::F64, &[2, 4], 0, 64), place(DType::Text, &[2], 64, 9), place(DType::I64, &[], 128, 8)]
            .into_iter()
            .flatten()
            .collect();
    let (mut answer, mut refusal) = (Vec::new(), Vec::new());
    protocol::write(&mut answer, &Header { rows: 2, mark: 192, ..Header::new(Kind::Answer, 7) }, &places);
    protocol::write_refusal(&mut refusal, 7, protocol::Fault::Input, "row 1: \u{e9}");
    let signature = r#"{"inputs":[{"name":"x","dtype":"FP32","row":[4,null]}],"outputs":[{"name":"y","dtype":"BYTES","row":[],"dims":"any"}],"columns":["a"]}"#;
    let ready = format!(
        r#"{{"signature":{signature},"entries":[{{"name":"s","method":"m","signature":{signature}}}],"row_cost_ns":5,"platform":"sklearn","format":"pickle","takes_documents":true,"outputs_vary":true}}"#
    );
    vec![answer, refusal, ready.into_bytes()]
}
