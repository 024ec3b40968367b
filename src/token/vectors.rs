//! Published signatures: those of the RFCs.

use super::algorithm::{Algorithm, AlgorithmSet};
use super::decode;
use super::fixtures::ISSUER;
use super::keys::KeySet;
use crate::reason::Reason;
use serde_json::{Value, json};

fn keys(jwks: &Value) -> KeySet {
    KeySet::from_jwks(jwks.to_string().as_bytes(), AlgorithmSet::all()).unwrap().0
}

/// Verifies with one key whatever the header says, since here the payload need not be claims.
fn verify_as(key: &Value, algorithm: Algorithm, jws: &str) -> Result<(), Reason> {
    let (message, signature) = jws.rsplit_once('.').unwrap();
    let signature = decode(signature).unwrap();
    keys(&json!({"keys": [key]})).verify(ISSUER, None, algorithm, message.as_bytes(), &signature)
}

#[test]
fn signatures_of_the_rfcs_verify() {
    let rfc7515_a2 = (
        json!({
            "kty": "RSA",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-\
                  yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-\
                  KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_\
                  h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
            "e": "AQAB",
        }),
        Algorithm::Rs256,
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290\
         Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5ju\
         jGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRm\
         B_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5A\
         XLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    );
    let rfc7515_a3 = (
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }),
        Algorithm::Es256,
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290\
         Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    );
    let rfc8037_a4 = (
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
        Algorithm::EdDsa,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhij\
         cNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    );
    for (key, algorithm, jws) in [rfc7515_a2, rfc7515_a3, rfc8037_a4] {
        assert_eq!(verify_as(&key, algorithm, jws), Ok(()), "{algorithm}");
        let elsewhere = jws.replacen('.', ".A", 1);
        assert_eq!(verify_as(&key, algorithm, &elsewhere), Err(Reason::TokenSignature), "{algorithm}");
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(verify_as(&key, other, jws).is_err(), "{algorithm} as {other}");
        }
    }
}
