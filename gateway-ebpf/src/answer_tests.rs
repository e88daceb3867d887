use super::*;
use crate::packet;

impl Frame for Vec<u8> {
    fn write<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Option<()> {
        let place = self.get_mut(at..at + 4 * N)?;
        place.copy_from_slice(words.map(u32::to_ne_bytes).as_flattened());
        Some(())
    }
    fn length(&self) -> usize {
        self.len()
    }
    fn resize(&mut self, length: usize) -> bool {
        Vec::resize(self, length, 0xee);
        true
    }
}

impl Bytes for Vec<u8> {
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.as_slice().read(at)
    }
}

const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

fn tcp(options: &[u8]) -> Vec<u8> {
    let words = (20 + options.len()) / 4;
    let mut header = vec![0xc0, 1, 0x01, 0xbb, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    header.extend([(words as u8) << 4, 0x02, 0xfa, 0xf0, 0xaa, 0xaa, 0, 0]);
    header.extend(options);
    header
}

fn ethernet(tags: usize, ethertype: u16) -> Vec<u8> {
    let mut frame = vec![1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2];
    for tag in 0..tags {
        frame.extend([0x81, 0, 0, tag as u8]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn ipv4(tags: usize, ip_options: usize, segment: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(tags, 0x0800);
    let length = (20 + ip_options + segment.len()) as u16;
    frame.extend([0x45 + (ip_options / 4) as u8, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 7, 0x40, 0, 63, 6, 9, 9, 192, 0, 2, 1, 198, 51, 100, 1]);
    frame.extend(vec![1; ip_options]);
    frame.extend(segment);
    frame
}

fn ipv6(tags: usize, extensions: usize, segment: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(tags, 0x86dd);
    let length = (8 * extensions + segment.len()) as u16;
    frame.extend([0x60, 1, 2, 3]);
    frame.extend(length.to_be_bytes());
    frame.extend([if extensions > 0 { 60 } else { 6 }, 63]);
    frame.extend((0..16).map(|byte| 0xa0 + byte));
    frame.extend((0..16).map(|byte| 0xb0 + byte));
    for left in (0..extensions).rev() {
        frame.extend([if left > 0 { 60 } else { 6 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    frame.extend(segment);
    frame
}

/// Every kind of SYN that is answered, each with the place of its IP header.
fn syns() -> Vec<(Vec<u8>, usize, bool)> {
    let mut syns = Vec::new();
    for tags in 0..=1 {
        for options in [&[][..], &SYN_OPTIONS] {
            syns.push((ipv4(tags, 0, &tcp(options)), 14 + 4 * tags, true));
            syns.push((ipv6(tags, 0, &tcp(options)), 14 + 4 * tags, false));
        }
    }
    syns
}

#[test]
fn what_few_send_is_not_answered() {
    let tcp = tcp(&SYN_OPTIONS);
    for frame in [ipv4(2, 0, &tcp), ipv6(2, 0, &tcp), ipv4(0, 12, &tcp), ipv6(0, 3, &tcp)] {
        let fields = packet::fields(&frame);
        assert!(fields.opens_connection());
        let mut same = frame.clone();
        assert!(!answer(&mut same, &fields, Answer::Reset));
        assert_eq!((syn(&frame), same), (None, frame));
    }
}

/// The checksum as RFC 1071 writes it down: of big-endian words, one after the other.
fn checksum(words: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in words.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What the answer says, if its checksums are right.
fn read(frame: &[u8], network: usize, is_ipv4: bool) -> (Vec<u8>, Vec<u8>) {
    let (addresses, transport, end) = if is_ipv4 {
        assert_eq!(checksum(&frame[network..network + 20]), 0);
        let length = usize::from(u16::from_be_bytes([frame[network + 2], frame[network + 3]]));
        (frame[network + 12..network + 20].to_vec(), network + 20, network + length)
    } else {
        let length = usize::from(u16::from_be_bytes([frame[network + 4], frame[network + 5]]));
        (frame[network + 8..network + 40].to_vec(), network + 40, network + 40 + length)
    };
    assert!(frame.len() == end || (end..=64).contains(&frame.len()), "{} of {end}", frame.len());
    let segment = &frame[transport..end];
    let mut pseudo = addresses.clone();
    pseudo.extend([0, 6, 0, segment.len() as u8]);
    pseudo.extend(segment);
    assert_eq!(checksum(&pseudo), 0);
    (addresses, segment.to_vec())
}

#[test]
fn every_syn_can_be_reset() {
    for (mut frame, network, is_ipv4) in syns() {
        let before = frame.clone();
        let fields = packet::fields(&frame);
        assert!(fields.opens_connection());
        assert!(answer(&mut frame, &fields, Answer::Reset));
        let (addresses, segment) = read(&frame, network, is_ipv4);
        let half = addresses.len() / 2;
        let at = network + if is_ipv4 { 12 } else { 8 };
        assert_eq!(addresses[..half], before[at + half..at + 2 * half]);
        assert_eq!(addresses[half..], before[at..at + half]);
        assert_eq!(frame[..12], [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
        assert_eq!(frame[12..network], before[12..network], "tags and type");
        assert_eq!(segment[..4], [0x01, 0xbb, 0xc0, 1]);
        // The sequence number after the last is 0.
        assert_eq!(segment[4..16], [0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x14, 0, 0]);
        assert_eq!(segment.len(), 20);
    }
}

#[test]
fn every_syn_can_be_answered_by_a_cookie() {
    for (mut frame, network, is_ipv4) in syns() {
        let fields = packet::fields(&frame);
        let length = frame.len();
        let cookie = Answer::Cookie { sequence: 0x0102_0304, mss: 1440 };
        assert!(answer(&mut frame, &fields, cookie));
        assert_eq!(frame.len(), length);
        let (_, segment) = read(&frame, network, is_ipv4);
        let words = (segment.len() / 4) as u8;
        assert_eq!(segment[4..14], [1, 2, 3, 4, 0, 0, 0, 0, words << 4, 0x12]);
        let option = [&[2, 4, 5, 160][..], &[0; 16]].concat();
        assert_eq!(segment[20..], option[..segment.len() - 20]);
    }
}

#[test]
fn padding_stays() {
    let frame = ipv4(0, 0, &tcp(&SYN_OPTIONS[..4]));
    for length in [58, 60, 64, 65] {
        let mut padded = frame.clone();
        Vec::resize(&mut padded, length, 0);
        let fields = packet::fields(&padded);
        assert!(answer(&mut padded, &fields, Answer::Cookie { sequence: 1, mss: 1440 }));
        assert_eq!(padded.len(), if length > 64 { 58 } else { length });
        read(&padded, 14, true);
    }
}

#[test]
fn a_syn_with_other_options_is_answered_with_one() {
    for count in [4, 8, 12, 16, 24, 40] {
        let options = [1; 40];
        let syn = tcp(&options[..count]);
        for (mut frame, is_ipv4) in [(ipv4(0, 0, &syn), true), (ipv6(0, 0, &syn), false)] {
            let fields = packet::fields(&frame);
            let cookie = Answer::Cookie { sequence: 1, mss: 1440 };
            assert!(answer(&mut frame, &fields, cookie));
            let (_, segment) = read(&frame, 14, is_ipv4);
            assert_eq!((segment[12], &segment[20..]), (0x60, &[2, 4, 5, 160][..]), "{count}");
        }
    }
}

#[test]
fn what_a_syn_brings_along_is_not_sent_back() {
    let cookie = Answer::Cookie { sequence: 1, mss: 1440 };
    for (frame, network, is_ipv4) in syns() {
        let mut longer = [&frame[..], &[b'a'; 64]].concat();
        let fields = packet::fields(&longer);
        assert!(answer(&mut longer, &fields, cookie));
        assert_eq!(longer.len(), frame.len());
        read(&longer, network, is_ipv4);
    }
}

/// What the kernel gets to see: addresses and ports, and both headers.
fn syn(frame: &Vec<u8>) -> Option<[Vec<u8>; 3]> {
    let mut words = [0; SYN_WORDS];
    let syn = Syn::read(frame, &packet::fields(frame), |place, word| words[place] = word)?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let parts = [(0, syn.tuple_bytes), (SYN_IP, syn.ip_bytes), (SYN_TCP, syn.tcp_bytes)];
    Some(parts.map(|(from, count)| bytes[4 * from..][..count as usize].to_vec()))
}

#[test]
fn what_a_cookie_is_made_of() {
    for (frame, network, is_ipv4) in syns() {
        let [tuple, ip, tcp] = syn(&frame).unwrap();
        let (length, addresses) = if is_ipv4 { (20, 12..20) } else { (40, 8..40) };
        assert_eq!(ip, frame[network..network + length]);
        let addresses = &frame[network + addresses.start..network + addresses.end];
        assert_eq!(tuple, [addresses, &[0xc0, 1, 0x01, 0xbb]].concat());
        assert_eq!(tcp, frame[packet::fields(&frame).transport()..]);
    }
}

#[test]
fn a_header_cut_short_makes_no_cookie() {
    let frame = ipv4(0, 0, &tcp(&SYN_OPTIONS));
    let transport = packet::fields(&frame).transport();
    for length in transport + 20..frame.len() {
        let mut cut = frame.clone();
        cut.truncate(length);
        assert_eq!(syn(&cut), None, "{length}");
    }
    let mut short = frame;
    short[transport + 12] = 0x40;
    assert_eq!(syn(&short), None, "fewer than five words");
}

#[test]
fn what_cannot_be_resized_stays_as_it_is() {
    struct Fixed(Vec<u8>);
    impl Bytes for Fixed {
        fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
            self.0.read(at)
        }
    }
    impl Frame for Fixed {
        fn write<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Option<()> {
            self.0.write(at, words)
        }
        fn length(&self) -> usize {
            self.0.len()
        }
        fn resize(&mut self, _: usize) -> bool {
            false
        }
    }
    for (frame, ..) in syns() {
        let fields = packet::fields(&frame);
        if frame.len() <= FRAME_MIN.max(fields.transport() + TCP_BYTES) {
            continue;
        }
        let mut fixed = Fixed(frame.clone());
        assert!(!answer(&mut fixed, &fields, Answer::Reset));
        assert_eq!(fixed.0, frame);
    }
}
