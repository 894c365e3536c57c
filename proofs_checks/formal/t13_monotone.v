(** T13, local monotone form: if F is strongly monotone on the ball and ||F(ybar) - y_s|| <= m r, the ball holds exactly one
    solution.  The relaxed step is projected back onto the ball, where Banach applies; at the fixed point the projection
    has nothing to do, because on the edge of the ball the residual points inwards. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space banach t5.
Open Scope R_scope.

Definition project {V : NormedModule R_AbsRing} (c : V) (r : R) (x : V) : V :=
  if Rle_dec (norm (x [-] c)) r then x else c [+] (r / norm (x [-] c)) [*] (x [-] c).

Lemma project_in_ball {V : NormedModule R_AbsRing} (c : V) (r : R) (x : V) :
  0 <= r -> norm (project c r x [-] c) <= r.
Proof.
  intros Hr; unfold project; destruct (Rle_dec (norm (x [-] c)) r) as [H|H]; [exact H|].
  replace (c [+] (r / norm (x [-] c)) [*] (x [-] c) [-] c) with ((r / norm (x [-] c)) [*] (x [-] c)) by vector.
  rewrite norm_scal_eq, Rabs_pos_eq by (apply Rdiv_le_0_compat; lra); right; field; lra.
Qed.

(** Seen from the projection, x lies on the other side of every point z of the ball. *)
Lemma project_variational {V : NormedModule R_AbsRing} {ip : InnerProduct V} (c : V) (r : R) (x z : V) :
  0 <= r -> norm (z [-] c) <= r -> ⟨x [-] project c r x, z [-] project c r x⟩ <= 0.
Proof.
  intros Hr Hz; unfold project; destruct (Rle_dec (norm (x [-] c)) r) as [H|H].
  - replace (x [-] x) with (zero : V) by vector; rewrite inner_zero; lra.
  - set (n := norm (x [-] c)) in *; set (t := r / n).
    assert (Ht : 0 <= t < 1) by (unfold t; split; [apply Rdiv_le_0_compat; lra|apply Rlt_div_l; lra]).
    replace (x [-] (c [+] t [*] (x [-] c))) with ((1 - t) [*] (x [-] c)) by vector.
    replace (z [-] (c [+] t [*] (x [-] c))) with ((z [-] c) [+] (- t) [*] (x [-] c)) by vector.
    rewrite inner_scal, inner_plus_r, inner_scal_r, inner_norm; fold n.
    assert (H1 := inner_le_norm (x [-] c) (z [-] c)); fold n in H1.
    assert (H2 : n * norm (z [-] c) <= n * r) by (apply Rmult_le_compat_l; lra).
    assert (H3 : t * n ^ 2 = n * r) by (unfold t; field; lra).
    assert (0 <= (1 - t) * - (⟨x [-] c, z [-] c⟩ + - t * n ^ 2)) by (apply Rmult_le_pos; lra).
    lra.
Qed.

Lemma project_nonexpansive {V : NormedModule R_AbsRing} {ip : InnerProduct V} (c : V) (r : R) (x y : V) :
  0 <= r -> norm (project c r x [-] project c r y) <= norm (x [-] y).
Proof.
  intros Hr; set (p := project c r x); set (q := project c r y).
  assert (H1 := project_variational c r x q Hr (project_in_ball c r y Hr)); fold p in H1.
  assert (H2 := project_variational c r y p Hr (project_in_ball c r x Hr)); fold q in H2.
  assert (H3 : norm (p [-] q) ^ 2 <= ⟨x [-] y, p [-] q⟩).
  { rewrite <- inner_norm; revert H1 H2; inner_expand; rewrite (inner_sym q p); lra. }
  assert (H4 := inner_le_norm (x [-] y) (p [-] q)); assert (H5 := norm_ge_0 (p [-] q)).
  destruct H5 as [H5|H5]; [|rewrite <- H5; apply norm_ge_0].
  apply Rmult_le_reg_r with (norm (p [-] q)); lra.
Qed.

Theorem t13_monotone (V : NormedModule R_AbsRing) (ip : InnerProduct V) (F : V -> V) (y_s ybar : V) (m L r : R)
  (HV : complete V)
  (Hm : 0 < m)
  (HL : 0 < L)
  (Hmonotone : forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r ->
    m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩)
  (Hlipschitz : forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r ->
    norm (F u [-] F v) <= L * norm (u [-] v))
  (Hcentre : norm (F ybar [-] y_s) <= m * r) :
  exists y, norm (y [-] ybar) <= r /\ F y = y_s /\ forall z, norm (z [-] ybar) <= r -> F z = y_s -> z = y.
Proof.
  assert (Hr : 0 <= r).
  { assert (H := norm_ge_0 (F ybar [-] y_s)); apply Rmult_le_reg_l with m; lra. }
  assert (Hc : norm (ybar [-] ybar) <= r) by (rewrite norm_minus_refl; exact Hr).
  set (omega := m / L ^ 2).
  assert (Ho : 0 < omega < 2 * m / L ^ 2) by now apply t5_best.
  assert (Hq := relaxed_rate m L omega HL Ho).
  set (q := sqrt (1 - 2 * omega * m + omega ^ 2 * L ^ 2)) in *.
  set (S := fun y => y [+] omega [*] (y_s [-] F y)).
  destruct (banach_closed V (fun y => norm (y [-] ybar) <= r) (fun y => project ybar r (S y)) q ybar)
    as (y & By & Hy & _); auto.
  - intros y; apply ball_closed.
  - intros u _; now apply project_in_ball.
  - intros u v Bu Bv; apply Rle_trans with (1 := project_nonexpansive ybar r (S u) (S v) Hr).
    unfold S; replace (u [+] omega [*] (y_s [-] F u) [-] (v [+] omega [*] (y_s [-] F v)))
      with ((u [-] v) [-] omega [*] (F u [-] F v)) by vector.
    apply relaxed_contracts; [lra|now apply Hmonotone|now apply Hlipschitz].
  - assert (Fy : F y = y_s).
    { assert (H := project_variational ybar r (S y) ybar Hr Hc); rewrite Hy in H.
      assert (E : S y [-] y = omega [*] (y_s [-] F y)) by (unfold S; vector).
      unfold project in Hy; destruct (Rle_dec (norm (S y [-] ybar)) r) as [Hin|Hout].
      - replace (F y) with (y_s [-] (/ omega) [*] (S y [-] y)) by (rewrite E; vector_by ltac:(field; lra)).
        rewrite Hy; vector.
      - exfalso; set (n := norm (S y [-] ybar)) in *; set (d := y [-] ybar).
        assert (Hn : 0 < n) by lra.
        (* S y - y = s d with s >= 0, yet <y_s - F y, d> <= 0 *)
        assert (Hd : d = (r / n) [*] (S y [-] ybar)) by (unfold d; rewrite <- Hy at 1; vector).
        assert (H1 : ⟨F y [-] F ybar, d⟩ >= m * norm d ^ 2) by (apply Rle_ge; now apply Hmonotone).
        assert (Hnd : norm d = r).
        { rewrite Hd, norm_scal_eq, Rabs_pos_eq by (apply Rdiv_le_0_compat; lra); fold n; field; lra. }
        assert (H2 : ⟨y_s [-] F ybar, d⟩ <= m * r * r).
        { apply Rle_trans with (1 := inner_le_norm _ _); rewrite Hnd, norm_minus_sym.
          apply Rmult_le_compat_r; lra. }
        assert (H3 : ⟨y_s [-] F y, d⟩ <= 0).
        { replace (y_s [-] F y) with ((y_s [-] F ybar) [+] (-1) [*] (F y [-] F ybar)) by vector.
          rewrite inner_plus, inner_scal; rewrite Hnd in H1; lra. }
        assert (H4 : ⟨S y [-] ybar, d⟩ <= r * r).
        { replace (S y [-] ybar) with ((S y [-] y) [+] d) by (unfold d; vector).
          rewrite inner_plus, E, inner_scal, inner_norm, Hnd.
          assert (omega * ⟨y_s [-] F y, d⟩ <= omega * 0) by (apply Rmult_le_compat_l; lra). lra. }
        rewrite Hd, inner_scal_r, inner_norm in H4; fold n in H4.
        replace (r / n * n ^ 2) with (r * n) in H4 by (field; lra).
        destruct Hr as [Hr|Hr].
        + assert (r * r < r * n) by (apply Rmult_lt_compat_l; lra); lra.
        + (* r = 0: the centre itself is the solution, so S keeps it *)
          assert (Ey : y = ybar) by (apply norm_minus_eq; lra).
          assert (Ef : F ybar = y_s) by (apply norm_minus_eq; rewrite <- Hr in Hcentre; lra).
          apply Hout; unfold n, S; rewrite Ey, Ef.
          replace (ybar [+] omega [*] (y_s [-] y_s) [-] ybar) with (zero : V) by vector.
          rewrite norm_zero; lra. }
    exists y; split; [exact By|]; split; [exact Fy|].
    intros z Bz Hz; apply norm_minus_eq.
    assert (H := Hmonotone z y Bz By); rewrite Hz, Fy in H.
    replace (y_s [-] y_s) with (zero : V) in H by vector; rewrite inner_zero in H.
    assert (Hn := norm_ge_0 (z [-] y)); destruct Hn as [Hn|Hn]; [|lra].
    assert (0 < m * norm (z [-] y) ^ 2) by (apply Rmult_lt_0_compat; [lra|now apply pow_lt]); lra.
Qed.
