//! The header lines of a request.

use crate::engine::headers::model::{CLIENT_IP_PLANS, Line, Plan, SOME_NAMES, TOKEN_PLANS, agrees};

/// Any bytes as header lines, read for one of some policies: as the model reads them.
///
/// The first line of the input chooses the policy: one letter each for the token headers, the client's address and two
/// names that are forwarded. Every other line is a header line: a capital letter for a name of the model and then the
/// value, or any other name, a colon and the value.
pub(super) fn headers(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let choices = lines.next().unwrap_or_default();
    let choice = |place: usize| usize::from(choices.get(place).map_or(0, |letter| letter.wrapping_sub(b'A')));
    let plan = Plan {
        tokens: TOKEN_PLANS[choice(0) % TOKEN_PLANS.len()].to_vec(),
        client_ip: CLIENT_IP_PLANS[choice(1) % CLIENT_IP_PLANS.len()],
        forwarded: [choice(2), choice(3)].iter().filter_map(|name| SOME_NAMES.get(*name)).copied().collect(),
    };
    let lines: Vec<(Vec<u8>, &[u8])> = lines
        .take(100)
        .map(|line| {
            let picked =
                line.first().and_then(|letter| SOME_NAMES.get(usize::from(letter.checked_sub(b'A')?)));
            match picked {
                Some(name) => (name.as_bytes().to_vec(), &line[1..]),
                None => {
                    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
                    // nginx's Lua interface gives names in lower case.
                    (line[..colon].to_ascii_lowercase(), line.get(colon + 1..).unwrap_or_default())
                }
            }
        })
        .collect();
    let lines: Vec<Line<'_>> = lines.iter().map(|(name, value)| (name.as_slice(), *value)).collect();
    agrees(&plan, &lines).unwrap_or_else(|failed| panic!("{failed}"))
}
