(** Banach's fixed-point theorem on a closed set that the map keeps: the tool behind T3, T5, T7 and T13. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space.
Open Scope R_scope.

Lemma pow_small (q c e : R) : 0 <= q < 1 -> 0 <= c -> 0 < e ->
  exists N : nat, forall k : nat, (N <= k)%nat -> q ^ k * c < e.
Proof.
  intros Hq Hc He.
  destruct (pow_lt_1_zero q) with (y := e / (c + 1)) as [N HN].
  - rewrite Rabs_pos_eq; lra.
  - apply Rdiv_lt_0_compat; lra.
  - exists N; intros k Hk; specialize (HN k Hk).
    rewrite Rabs_pos_eq in HN by (apply pow_le; lra).
    assert (Hp : 0 <= q ^ k) by (apply pow_le; lra).
    apply Rlt_div_r in HN; [|lra].
    apply Rle_lt_trans with (2 := HN); apply Rmult_le_compat_l; lra.
Qed.

Lemma banach_closed (V : NormedModule R_AbsRing) (C : V -> Prop) (G : V -> V) (kappa : R) (y0 : V) :
  complete V ->
  0 <= kappa < 1 ->
  (forall y, (forall e, 0 < e -> exists u, C u /\ norm (u [-] y) < e) -> C y) ->
  (forall u, C u -> C (G u)) ->
  C y0 ->
  (forall u v, C u -> C v -> norm (G u [-] G v) <= kappa * norm (u [-] v)) ->
  exists y, C y /\ G y = y /\ (forall z, C z -> G z = z -> z = y) /\
    (forall u, C u -> norm (u [-] y) <= norm (G u [-] u) / (1 - kappa)) /\
    (forall k, norm (Nat.iter k G y0 [-] y) <= kappa ^ k / (1 - kappa) * norm (G y0 [-] y0)) /\
    (forall k, norm (Nat.iter k G y0 [-] y) <= kappa ^ k * norm (y0 [-] y)).
Proof.
  intros HV Hk HC HS H0 HG.
  set (x := fun k => Nat.iter k G y0); set (d := norm (G y0 [-] y0)).
  assert (Hd : 0 <= d) by apply norm_ge_0.
  assert (Cx : forall k, C (x k)) by (induction k; [exact H0|simpl; now apply HS]).
  assert (step : forall k, norm (x (S k) [-] x k) <= kappa ^ k * d).
  { induction k as [|k IH]; [simpl; fold d; lra|].
    apply Rle_trans with (1 := HG _ _ (Cx (S k)) (Cx k)); simpl pow.
    rewrite Rmult_assoc; apply Rmult_le_compat_l; [lra|exact IH]. }
  assert (far : forall k n, norm (x (n + k)%nat [-] x k) <= kappa ^ k * (1 - kappa ^ n) / (1 - kappa) * d).
  { intros k; induction n as [|n IH].
    - simpl; rewrite norm_minus_refl; right; field; lra.
    - apply Rle_trans with (1 := norm_minus_triangle _ (x (n + k)%nat) _).
      apply Rle_trans with (1 := Rplus_le_compat _ _ _ _ (step (n + k)%nat) IH).
      right; rewrite pow_add; simpl pow; field; lra. }
  assert (far' : forall k n, norm (x (n + k)%nat [-] x k) <= kappa ^ k * (d / (1 - kappa))).
  { intros k n; apply Rle_trans with (1 := far k n).
    replace (kappa ^ k * (1 - kappa ^ n) / (1 - kappa) * d)
      with (kappa ^ k * (d / (1 - kappa)) * (1 - kappa ^ n)) by (field; lra).
    rewrite <- (Rmult_1_r (kappa ^ k * (d / (1 - kappa)))) at 2.
    apply Rmult_le_compat_l.
    - apply Rmult_le_pos; [apply pow_le; lra|apply Rdiv_le_0_compat; lra].
    - assert (0 <= kappa ^ n) by (apply pow_le; lra); lra. }
  assert (Hc : 0 <= d / (1 - kappa)) by (apply Rdiv_le_0_compat; lra).
  destruct (HV x) as [y Hy].
  { intros e He; destruct (pow_small kappa (d / (1 - kappa)) (e / 2) Hk Hc ltac:(lra)) as [N HN].
    exists N; intros j k Hj Hk'; specialize (HN N (le_n N)).
    apply Rle_lt_trans with (1 := norm_minus_triangle _ (x N) _).
    rewrite (norm_minus_sym (x N) (x k)).
    replace j with ((j - N) + N)%nat by lia; replace k with ((k - N) + N)%nat by lia.
    pose proof (far' N (j - N)%nat); pose proof (far' N (k - N)%nat); lra. }
  assert (bound : forall k, norm (x k [-] y) <= kappa ^ k * (d / (1 - kappa))).
  { intros k; apply le_epsilon; intros e He.
    destruct (Hy e He) as [N HN]; specialize (HN (N + k)%nat ltac:(lia)).
    apply Rle_trans with (1 := norm_minus_triangle _ (x (N + k)%nat) _).
    rewrite (norm_minus_sym (x k)); pose proof (far' k N); lra. }
  assert (Cy : C y).
  { apply HC; intros e He; destruct (Hy e He) as [N HN]; exists (x N); split; [apply Cx|now apply HN]. }
  assert (fix_y : G y = y).
  { apply norm_minus_eq, le_epsilon; intros e He; rewrite Rplus_0_l.
    destruct (Hy (e / 2) ltac:(lra)) as [N HN].
    apply Rle_trans with (1 := norm_minus_triangle _ (x (S N)) _).
    assert (H1 := HG _ _ Cy (Cx N)); rewrite (norm_minus_sym y) in H1.
    assert (H2 := HN N (le_n N)); assert (H3 := HN (S N) ltac:(lia)).
    change (G (x N)) with (x (S N)) in H1.
    assert (kappa * norm (x N [-] y) <= 1 * norm (x N [-] y)).
    { apply Rmult_le_compat_r; [apply norm_ge_0|lra]. }
    lra. }
  assert (post : forall u, C u -> norm (u [-] y) <= norm (G u [-] u) / (1 - kappa)).
  { intros u Cu; apply Rle_div_r; [lra|].
    assert (H1 := norm_minus_triangle u (G u) y); rewrite (norm_minus_sym u (G u)) in H1.
    assert (H2 := HG _ _ Cu Cy); rewrite fix_y in H2; lra. }
  exists y; repeat split; try assumption.
  - intros z Cz Hz; apply norm_minus_eq.
    apply Rle_trans with (1 := post z Cz); rewrite Hz, norm_minus_refl; right; field; lra.
  - intros k; apply Rle_trans with (1 := bound k); fold d; right; field; lra.
  - induction k as [|k IH]; [simpl; lra|].
    assert (H1 := HG _ _ (Cx k) Cy); rewrite fix_y in H1.
    apply Rle_trans with (1 := H1); simpl pow; rewrite Rmult_assoc.
    apply Rmult_le_compat_l; [lra|exact IH].
Qed.

(** A closed ball is closed. *)
Lemma ball_closed {V : NormedModule R_AbsRing} (c y : V) (r : R) :
  (forall e, 0 < e -> exists u, norm (u [-] c) <= r /\ norm (u [-] y) < e) -> norm (y [-] c) <= r.
Proof.
  intros H; apply le_epsilon; intros e He; destruct (H e He) as (u & Hu & Huy).
  assert (H1 := norm_minus_triangle y u c); rewrite (norm_minus_sym y u) in H1; lra.
Qed.
