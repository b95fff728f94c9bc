//! The program that keeps a cgroup v2 from device nodes: made by hand, loaded and attached by the system call `bpf`.
//!
//! What must hold: the program answers "allowed" to everything but the listed character devices, so whatever a task could open before it can
//! open still; other programs that are attached above (a service manager's) go on to be asked. It needs no library and no compiler: it is a
//! row of comparisons, without loops or calls.
#![expect(unsafe_code, reason = "there is no safe way to load a program into the kernel")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::contract::DeviceNode;

/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`, as what it is attached.
const ATTACH_TYPE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: beside programs of others, each of which may refuse.
const ALLOW_MULTI: u32 = 2;
/// `BPF_PROG_LOAD` and `BPF_PROG_ATTACH`.
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
/// `BPF_DEVCG_DEV_CHAR`.
const CHAR: i32 = 2;
/// Devices that one program can name: the jump from the first of them has to reach the end.
pub(super) const MOST_DEVICES: usize = 4_096;

/// One instruction, as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Insn {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    value: i32,
}

const fn insn(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Insn {
    Insn { code, registers: to | (from << 4), offset, value }
}

/// `to = *(u32 *)(context + offset)`; the context is in register 1.
const fn load(to: u8, offset: i16) -> Insn {
    insn(0x61, to, 1, offset, 0)
}

/// Skips `by` instructions if the register is `value`.
const fn skip_if(register: u8, value: i32, by: i16) -> Insn {
    insn(0x15, register, 0, by, value)
}

/// Skips `by` instructions if the register is not `value`.
const fn skip_unless(register: u8, value: i32, by: i16) -> Insn {
    insn(0x55, register, 0, by, value)
}

/// Answers 0 (refused) or 1 (allowed).
const fn answer(value: i32) -> [Insn; 2] {
    [insn(0xb7, 0, 0, 0, value), insn(0x95, 0, 0, 0, 0)]
}

/// The program. The context is `struct bpf_cgroup_dev_ctx`: kind of access and of device in one word, major, minor.
pub(super) fn program(denied: &[DeviceNode]) -> Vec<Insn> {
    let denied = &denied[..denied.len().min(MOST_DEVICES)];
    if denied.is_empty() {
        // The kernel takes no instructions that nobody comes to.
        return answer(1).to_vec();
    }
    let mut program = vec![load(2, 0), insn(0x54, 2, 0, 0, 0xffff), load(3, 4), load(4, 8)];
    // Two comparisons each, and the answer "allowed" behind them: whoever is denied jumps over what is left and that.
    let mut left = denied.len() as i16 * 2;
    program.push(skip_unless(2, CHAR, left));
    for node in denied {
        left -= 2;
        program.push(skip_unless(3, node.major.cast_signed(), 1));
        program.push(skip_if(4, node.minor.cast_signed(), left + 2));
    }
    program.extend(answer(1));
    program.extend(answer(0));
    program
}

/// What `BPF_PROG_LOAD` reads; the rest of the kernel's union is left out, which is zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// What `BPF_PROG_ATTACH` reads.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Gives a program to the kernel, which checks it. It lives for as long as somebody has it, or it is attached.
pub(super) fn load_program(denied: &[DeviceNode]) -> io::Result<OwnedFd> {
    let program = program(denied);
    let mut name = [0; 16];
    name[..13].copy_from_slice(b"flash_devices");
    let load = Load {
        kind: CGROUP_DEVICE,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        attach_type: ATTACH_TYPE,
    };
    // SAFETY: the kernel reads `size_of::<Load>()` bytes of a struct laid out as its own, and the instructions and the licence that it points to,
    // all of which live until the call is over. It gives back a descriptor that is nobody else's.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>());
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Has a program asked for whatever is done in this cgroup from now on.
pub(super) fn attach(program: &impl AsFd, cgroup: &Path) -> io::Result<()> {
    let folder = File::open(cgroup)?;
    let attach = Attach {
        target: folder.as_raw_fd().cast_unsigned(),
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        kind: ATTACH_TYPE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the kernel reads `size_of::<Attach>()` bytes of a struct laid out as its own, and keeps nothing of it; both descriptors are open.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    const fn node(major: u32, minor: u32) -> DeviceNode {
        DeviceNode { major, minor }
    }

    /// What the kernel's machine would answer, for the few instructions that there are.
    fn run(program: &[Insn], context: [u32; 3]) -> u64 {
        let mut registers = [0_u64; 5];
        let mut at = 0;
        for _ in 0..=program.len() {
            let Insn { code, registers: which, offset, value } = program[at];
            let (to, from) = (usize::from(which & 15), usize::from(which >> 4));
            at += 1;
            let skip = usize::try_from(offset).unwrap();
            match code {
                0x61 => {
                    assert_eq!(from, 1, "only the context is read");
                    registers[to] = context[skip / 4].into();
                }
                0x54 => registers[to] = u64::from(registers[to] as u32 & value.cast_unsigned()),
                0x15 if registers[to] == u64::try_from(value).unwrap() => at += skip,
                0x55 if registers[to] != u64::try_from(value).unwrap() => at += skip,
                0x15 | 0x55 => {}
                0xb7 => registers[to] = u64::try_from(value).unwrap(),
                0x95 => return registers[0],
                other => panic!("instruction {other:#x}"),
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn what_is_listed_is_refused_and_nothing_else() {
        let denied = [node(195, 0), node(195, 3), node(226, 128)];
        let program = program(&denied);
        for access in [1_u32, 2, 4, 6] {
            for kind in [1_u32, 2] {
                for (major, minor) in [(195, 0), (195, 1), (195, 3), (195, 255), (226, 128), (226, 0), (1, 3), (3, 195), (0, 0)] {
                    let expected = kind != 2 || !denied.contains(&node(major, minor));
                    let answered = run(&program, [access << 16 | kind, major, minor]);
                    assert_eq!(answered == 1, expected, "{access} {kind} {major}:{minor}");
                }
            }
        }
        let none = super::program(&[]);
        assert_eq!(run(&none, [0x20002, 195, 0]), 1);
    }

    #[test]
    fn the_bytes_are_those_of_the_kernels_machine() {
        let bytes = |insn: &Insn| {
            let [low, high] = insn.offset.to_le_bytes();
            let value = insn.value.to_le_bytes();
            [insn.code, insn.registers, low, high, value[0], value[1], value[2], value[3]]
        };
        let program: Vec<[u8; 8]> = program(&[node(195, 7)]).iter().map(bytes).collect();
        assert_eq!(
            program,
            [
                [0x61, 0x12, 0, 0, 0, 0, 0, 0],
                [0x54, 0x02, 0, 0, 0xff, 0xff, 0, 0],
                [0x61, 0x13, 4, 0, 0, 0, 0, 0],
                [0x61, 0x14, 8, 0, 0, 0, 0, 0],
                [0x55, 0x02, 2, 0, 2, 0, 0, 0],
                [0x55, 0x03, 1, 0, 195, 0, 0, 0],
                [0x15, 0x04, 2, 0, 7, 0, 0, 0],
                [0xb7, 0x00, 0, 0, 1, 0, 0, 0],
                [0x95, 0x00, 0, 0, 0, 0, 0, 0],
                [0xb7, 0x00, 0, 0, 0, 0, 0, 0],
                [0x95, 0x00, 0, 0, 0, 0, 0, 0],
            ]
        );
    }

    #[test]
    fn the_longest_program_still_reaches_its_end() {
        let denied: Vec<DeviceNode> = (0..MOST_DEVICES as u32 + 9).map(|minor| node(195, minor)).collect();
        let program = program(&denied);
        assert_eq!(run(&program, [0x20002, 195, 0]), 0);
        assert_eq!(run(&program, [0x20002, 195, MOST_DEVICES as u32 - 1]), 0);
        assert_eq!(run(&program, [0x20002, 195, MOST_DEVICES as u32]), 1);
    }

    #[test]
    fn the_kernel_takes_it_where_it_takes_any() {
        let many: Vec<DeviceNode> = (0..MOST_DEVICES as u32).map(|minor| node(195, minor)).collect();
        for denied in [&[][..], &many[..1], &many[..2], &many] {
            match load_program(denied) {
                Ok(_) => {}
                // Not permitted, or a kernel without it; what is wrong with the program itself would be another error.
                Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)), "{error}"),
            }
        }
    }
}
