// What users of E2B do with sandboxes in JavaScript. Every function is one test; they run at the same time.

import assert from 'node:assert/strict'
import {
  CommandExitError,
  FileNotFoundError,
  FilesystemEventType,
  InvalidArgumentError,
  Sandbox,
  SandboxNotFoundError,
  TimeoutError,
} from 'e2b'

const text = (bytes) => new TextDecoder().decode(bytes)
const bytes = (string) => new TextEncoder().encode(string)

async function within(options, use) {
  const sandbox = await Sandbox.create('base', { timeoutMs: 60_000, ...options })
  try {
    return await use(sandbox)
  } finally {
    await sandbox.kill()
  }
}

export async function a_sandbox_is_created_found_and_killed() {
  const metadata = { purpose: crypto.randomUUID() }
  const sandbox = await Sandbox.create('base', { timeoutMs: 60_000, metadata })
  assert.equal(await sandbox.isRunning(), true)
  const page = Sandbox.list({ query: { metadata, state: ['running'] } })
  assert.deepEqual((await page.nextItems()).map((each) => each.sandboxId), [sandbox.sandboxId])
  assert.equal(page.hasNext, false)
  const info = await Sandbox.getInfo(sandbox.sandboxId)
  assert.equal(info.name, 'base')
  assert.deepEqual(info.metadata, metadata)
  assert.ok(info.endAt > info.startedAt)
  assert.ok((await sandbox.getMetrics()).length > 0)
  assert.equal(await sandbox.kill(), true)
  assert.equal(await sandbox.kill(), false)
  assert.equal(await sandbox.isRunning(), false)
  await assert.rejects(Sandbox.connect(sandbox.sandboxId), SandboxNotFoundError)
}

export async function commands_run_with_environment_user_and_directory() {
  // An emulator that is run by an ordinary user has no other users to give.
  const user = process.getuid() === 0 ? 'root' : 'user'
  await within({ envs: { GREETING: 'hello', BOTH: 'sandbox' } }, async (sandbox) => {
    const done = await sandbox.commands.run('echo "$GREETING $BOTH $(id -un) $PWD"; echo warn >&2', {
      envs: { BOTH: 'call' },
      cwd: '/tmp',
      user: 'root',
    })
    assert.deepEqual([done.stdout, done.stderr, done.exitCode], [`hello call ${user} /tmp\n`, 'warn\n', 0])
    await assert.rejects(sandbox.commands.run('exit 3'), (error) => {
      return error instanceof CommandExitError && error.exitCode === 3
    })
    await assert.rejects(sandbox.commands.run('true', { cwd: '/missing' }), InvalidArgumentError)
    await assert.rejects(sandbox.commands.run('sleep 10', { timeoutMs: 500 }), TimeoutError)
  })
}

export async function a_background_command_is_fed_listed_joined_and_killed() {
  await within({}, async (sandbox) => {
    const echo = await sandbox.commands.run('cat', { background: true, stdin: true })
    await sandbox.commands.sendStdin(echo.pid, 'line\n')
    await sandbox.commands.closeStdin(echo.pid)
    assert.equal((await echo.wait()).stdout, 'line\n')
    const sleep = await sandbox.commands.run('sleep 300', { background: true })
    assert.deepEqual((await sandbox.commands.list()).map((each) => each.pid), [sleep.pid])
    const joined = await sandbox.commands.connect(sleep.pid)
    assert.equal(await sandbox.commands.kill(sleep.pid), true)
    await assert.rejects(joined.wait(), CommandExitError)
    assert.equal(await sandbox.commands.kill(999_999), false)
  })
}

export async function files_are_written_read_listed_moved_and_removed() {
  await within({}, async (sandbox) => {
    const { files } = sandbox
    const written = await files.write('d/a.txt', 'text', { metadata: { author: 'me' } })
    assert.deepEqual([written.path, written.metadata], ['/home/user/d/a.txt', { author: 'me' }])
    await files.write('d/b.bin', new Blob([bytes('blob')]), { gzip: true })
    await files.write([
      { path: 'd/c.txt', data: 'c' },
      { path: 'd/e.txt', data: bytes('e').buffer },
    ])
    assert.equal(await files.read('d/a.txt'), 'text')
    assert.equal(text(await files.read('d/b.bin', { format: 'bytes', gzip: true })), 'blob')
    assert.equal(await (await files.read('d/c.txt', { format: 'blob' })).text(), 'c')
    let streamed = ''
    for await (const piece of await files.read('d/e.txt', { format: 'stream' })) streamed += text(piece)
    assert.equal(streamed, 'e')
    assert.deepEqual((await files.list('d')).map((each) => each.name), ['a.txt', 'b.bin', 'c.txt', 'e.txt'])
    const moved = await files.rename('d/a.txt', 'f/a.txt')
    assert.deepEqual([moved.path, moved.permissions, moved.owner], ['/home/user/f/a.txt', '-rw-r--r--', 'user'])
    assert.equal(await files.makeDir('f'), false)
    await files.remove('d')
    assert.equal(await files.exists('d'), false)
    await assert.rejects(files.read('d/a.txt'), FileNotFoundError)
  })
}

export async function signed_urls_work_where_all_sandboxes_have_one_host() {
  await within({}, async (sandbox) => {
    const form = new FormData()
    form.append('file', 'sent')
    const url = await sandbox.uploadUrl('in.txt', { useSignatureExpiration: 10_000 })
    const response = await fetch(url, { method: 'POST', body: form })
    assert.deepEqual(await response.json(), [{ path: '/home/user/in.txt', name: 'in.txt', type: 'file' }])
    assert.equal(await (await fetch(await sandbox.downloadUrl('in.txt'))).text(), 'sent')
    const expired = await fetch(await sandbox.downloadUrl('in.txt', { useSignatureExpiration: -10_000 }))
    assert.equal(expired.status, 401)
    assert.deepEqual(await expired.json(), { code: 401, message: 'signature is already expired' })
  })
}

export async function changes_of_a_directory_are_reported() {
  await within({}, async (sandbox) => {
    await sandbox.files.makeDir('watched/below')
    let report
    const reported = new Promise((resolve) => (report = resolve))
    const watch = await sandbox.files.watchDir(
      'watched',
      (event) => event.type === FilesystemEventType.WRITE && report(event.name),
      { recursive: true }
    )
    await sandbox.files.write('watched/below/new.txt', 'new')
    assert.equal(await reported, 'below/new.txt')
    await watch.stop()
    await assert.rejects(sandbox.files.watchDir('missing', () => {}), FileNotFoundError)
  })
}

export async function a_terminal_is_resized_fed_joined_and_left() {
  await within({}, async (sandbox) => {
    let seen = ''
    const first = await sandbox.pty.create({ cols: 80, rows: 24, onData: (data) => (seen += text(data)) })
    await sandbox.pty.resize(first.pid, { cols: 101, rows: 30 })
    await first.disconnect()
    const again = await sandbox.pty.connect(first.pid, { onData: (data) => (seen += text(data)) })
    await sandbox.pty.sendInput(first.pid, bytes('stty size; exit\n'))
    assert.equal((await again.wait()).exitCode, 0)
    assert.match(seen, /30 101/)
  })
}

export async function a_pause_keeps_what_runs_and_a_connection_resumes_it() {
  await within({}, async (sandbox) => {
    const sleep = await sandbox.commands.run('sleep 300', { background: true, timeoutMs: 0 })
    assert.equal(await sandbox.pause(), true)
    assert.equal(await sandbox.isRunning(), false)
    assert.equal(await sandbox.pause(), false)
    const paused = await Sandbox.list({ query: { state: ['paused'] } }).nextItems()
    assert.ok(paused.some((each) => each.sandboxId === sandbox.sandboxId))
    const again = await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 60_000 })
    assert.equal(await sandbox.isRunning(), true)
    assert.deepEqual((await again.commands.list()).map((each) => each.pid), [sleep.pid])
    await sleep.kill()
  })
}

export async function snapshots_and_forks_are_copies() {
  await within({}, async (sandbox) => {
    await sandbox.files.write('state.txt', 'before')
    const snapshot = await sandbox.createSnapshot()
    const [fork] = await sandbox.fork()
    await sandbox.files.write('state.txt', 'after')
    const restored = await Sandbox.create(snapshot.snapshotId, { timeoutMs: 60_000 })
    assert.equal(await fork.files.read('state.txt'), 'before')
    assert.equal(await restored.files.read('state.txt'), 'before')
    await Promise.all([fork.kill(), restored.kill()])
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false)
  })
}

export async function a_kill_ends_what_is_going_on() {
  await within({}, async (sandbox) => {
    const sleep = await sandbox.commands.run('sleep 300', { background: true, timeoutMs: 0 })
    const ended = assert.rejects(sleep.wait(), /sandbox was killed or reached its end of life/)
    await sandbox.kill()
    await ended
  })
}
