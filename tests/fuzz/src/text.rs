//! Changes to bytes that are taken for text: bits, ranges, and words that mean something to the reader. Knows no format.

use crate::Program;

/// No input is made longer.
pub(crate) const BYTES_MAX: usize = 65_536;

/// Words that readers of any text may stumble over.
const WORDS: [&str; 14] = [
    "",
    " ",
    "\0",
    "\n",
    "\u{1}",
    "\u{7f}",
    "ü",
    "\u{1f34e}",
    "-",
    "/",
    "A",
    "0",
    "18446744073709551616",
    "-9223372036854775809",
];

/// One to four changes.
pub(crate) fn mutate(bytes: &mut Vec<u8>, words: &[&str], others: &[Vec<u8>], program: &mut Program<'_>) {
    for _ in 0..=program.below(4) {
        change(bytes, words, others, program);
        bytes.truncate(BYTES_MAX);
    }
}

/// One to three changes of lines (`setting = value`), and now and then of bytes.
pub(crate) fn mutate_lines(bytes: &mut Vec<u8>, words: &[&str], others: &[Vec<u8>], program: &mut Program<'_>) {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for _ in 0..=program.below(3) {
        let (place, to) = (program.below(lines.len()), program.below(lines.len()));
        match program.byte() % 16 {
            0 if lines.len() > 1 => drop(lines.remove(place)),
            1 => lines.insert(to, lines[place].clone()),
            2 => lines.swap(place, to),
            3 => {
                let other = program.one_of(others).map(Vec::as_slice).unwrap_or_default();
                let other: Vec<_> = other.split(|byte| *byte == b'\n').collect();
                lines.insert(to, program.one_of(&other).map(|line| line.to_vec()).unwrap_or_default());
            }
            4 => mutate(&mut lines[place], words, &[], program),
            _ => {
                let setting = lines[place].split(|byte| *byte == b'=').next().unwrap_or_default();
                let value = word(words, program);
                lines[place] = [setting, b"= ", value].concat();
            }
        }
    }
    *bytes = lines.join(&b'\n');
    bytes.truncate(BYTES_MAX);
}

fn change(bytes: &mut Vec<u8>, words: &[&str], others: &[Vec<u8>], program: &mut Program<'_>) {
    let place = program.below(bytes.len() + 1);
    let end = (place + program.below(9)).min(bytes.len());
    match program.byte() % 9 {
        0 => bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1 << (program.byte() % 8)),
        1 => bytes.insert(place, program.byte()),
        2 => drop(bytes.drain(place..end)),
        3 => bytes.extend_from_within(place..end),
        4 => bytes.truncate(place),
        5 => bytes[place..end].make_ascii_uppercase(),
        6 => {
            let many = 1 << program.below(8);
            let again = bytes[place..end].repeat(many);
            bytes.splice(place..place, again);
        }
        7 => {
            let other = program.one_of(others).map(Vec::as_slice).unwrap_or_default();
            let from = program.below(other.len() + 1);
            bytes.splice(place.., other[from..].iter().copied());
        }
        _ => {
            let word = word(words, program).to_vec();
            bytes.splice(place..end, word);
        }
    }
}

/// One of the target's words, or of those for all.
pub(crate) fn word<'w>(words: &[&'w str], program: &mut Program<'_>) -> &'w [u8] {
    let own = !program.byte().is_multiple_of(3);
    let word = if own { program.one_of(words) } else { None }.or_else(|| program.one_of(&WORDS));
    word.copied().unwrap_or_default().as_bytes()
}
